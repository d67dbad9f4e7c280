"""The order of a confirmation's runs: those of one seed follow each other on one GPU, as far as Ray lets them."""

from __future__ import annotations

from pathlib import Path

from optuna.trial import TrialState

from sbp_tune.study.file import Study
from sbp_tune.study.nodes import TrialNodes
from sbp_tune.study.searcher import OptunaSearcher
from sbp_tune.study.sections import ConfirmConfig


class BlockSearcher(OptunaSearcher):
    """Starts a run of a seed of which none runs at present, if it can.

    Ray gives a trial whatever GPU is free. But it reuses the process of a trial that has ended, which keeps its GPU,
    for the one that is suggested next: with no more runs at a time than there are seeds, that is the next of the
    same seed. Where two end at once, or after a crash, a seed may move to another GPU; the ledger knows which.
    """

    def __init__(self, study: Study, path: Path, confirm: ConfirmConfig, nodes: TrialNodes | None = None) -> None:
        super().__init__(study, path, nodes=nodes)
        self._seeds = [run.seed for run in confirm.runs]  # by number of the trial

    def _ask(self) -> int:
        trials = self._optuna.get_trials(deepcopy=False)
        busy = {self._seeds[trial.number] for trial in trials if trial.state == TrialState.RUNNING}
        waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
        chosen = next((trial for trial in waiting if self._seeds[trial.number] not in busy), waiting[0])
        # Optuna's own ask() would take the first.
        self._optuna._storage.set_trial_state_values(chosen._trial_id, TrialState.RUNNING)
        return chosen.number
