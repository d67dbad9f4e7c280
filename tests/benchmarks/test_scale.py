import pandas as pd
import pytest

from benchmarks.scale import main


@pytest.mark.parametrize("halving", ["stopping", "promotion"])
def test_a_simulated_cluster_runs_a_whole_study_and_says_what_it_cost(halving, tmp_path, capsys):
    """All trials end, as many as the study has, some of them stopped by the scheduler, or for ever waiting."""
    options = ["--trials", "6", "--concurrent", "3", "--set", "config.epochs={choice: [2, 6]}", "-o", str(tmp_path)]
    baselines = "baselines=[{sparsity.estimator: dense, epochs: 6}]"
    main([*options, "--set", baselines, "--set", "search.reduction_factor=2", "--set", f"search.halving={halving}"])
    [file] = tmp_path.glob("scale_*_3gpus_random_moasha_6trials.csv")
    rows = pd.read_csv(file)
    assert rows["trials"].tolist() == list(range(1, 8)) or halving == "promotion"  # who waits to the end, ends with it
    results = rows["results_a_trial"].sum()
    assert (
        (7 * 1 <= results <= 7 * 6 or halving == "promotion")
        and (rows["ms_a_trial"] > 0).all()
        and (rows["rss_gb"] > 0).all()
    )
    assert str(file) in capsys.readouterr().out


def test_a_proposal_is_timed_at_every_size(tmp_path):
    main(["--latency", "3", "6", "--sampler", "random", "nsga2", "--trials", "5", "-o", str(tmp_path)])
    [file] = tmp_path.glob("scale_*_latency.csv")
    rows = pd.read_csv(file)
    assert rows["sampler"].tolist() == ["random"] * 2 + ["nsga2"] * 2 and rows["trials"].tolist() == [3, 6] * 2
    assert (rows["ms_a_proposal"] > 0).all()
