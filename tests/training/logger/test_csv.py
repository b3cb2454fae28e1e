"""metrics.csv: a column a metric, columns may come later, a resumed run goes on behind what it still knows."""

import pytest

from training.logger.csv import Csv


@pytest.fixture
def csv(tmp_path, monkeypatch):
    monkeypatch.setattr("training.logger.csv.time.monotonic", lambda: 0.0)
    return Csv(tmp_path)


def content(csv):
    return csv.path.read_text(encoding="utf-8").splitlines()


def test_each_line_is_there_as_soon_as_it_is_known(csv):
    csv.log_metrics({"train/loss": 2.5}, step=10)
    assert content(csv) == ["step,seconds,train/loss", "10,0,2.5"]
    csv.log_metrics({"train/loss": 1.23456789}, step=20)
    assert content(csv)[-1] == "20,0,1.23457"


def test_seconds_do_not_go_back_where_the_clock_does(tmp_path, monkeypatch):
    clock = iter(range(1_000_000, 0, -3600))
    monkeypatch.setattr("time.time", lambda: next(clock))
    logger = Csv(tmp_path)
    for step in (10, 20, 30):
        logger.log_metrics({"train/loss": 2.5}, step=step)
    seconds = [float(row["seconds"]) for row in logger.rows()]
    assert seconds == sorted(seconds)
    assert seconds[0] >= 0


def test_a_metric_that_comes_later_is_a_new_column(csv):
    csv.log_metrics({"train/loss": 2.5}, step=10)
    csv.log_metrics({"val/loss": 2.0}, step=10)
    csv.log_metrics({"train/loss": 1.5}, step=20)
    assert content(csv) == ["step,seconds,train/loss,val/loss", "10,0,2.5,", "10,0,,2", "20,0,1.5,"]


def test_a_run_that_starts_anew_starts_the_file_anew(csv, tmp_path):
    csv.log_metrics({"loss": 1.0}, step=1)
    again = Csv(tmp_path)
    again.log_metrics({"loss": 2.0}, step=1)
    assert content(again) == ["step,seconds,loss", "1,0,2"]


def test_a_resumed_run_forgets_the_steps_that_it_takes_again(csv, tmp_path):
    for step in (1, 2, 3, 4):
        csv.log_metrics({"loss": float(step)}, step=step)
    again = Csv(tmp_path)
    again.resume(2)
    again.log_metrics({"loss": 30.0}, step=3)
    assert content(again) == ["step,seconds,loss", "1,0,1", "2,0,2", "3,0,30"]


def test_a_resumed_run_in_a_new_folder_starts_a_file(tmp_path):
    csv = Csv(tmp_path / "new")
    csv.resume(5)
    csv.log_metrics({"loss": 1.0}, step=6)
    assert len(content(csv)) == 2
