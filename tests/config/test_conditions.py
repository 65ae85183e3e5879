"""Settings that other settings switch off are refused with the reason, and left to the models that use them."""

import pytest
from conftest import HPARAMS

from korser import UserError, load_hparams
from korser.config.names import check_shared_overrides
from korser.config.usage import keep_used

MEL, SVM = HPARAMS / "mel_stl.yaml", HPARAMS / "egemaps_svm_stl.yaml"


@pytest.mark.parametrize(
    ("path", "overrides", "reason"),
    [
        (MEL, {"debug_batches": 3}, "'debug_batches' has no effect on mel_stl, without debug: true"),
        (MEL, {"compile_mode": "max-autotune"}, "without compile: true"),
        (MEL, {"warmup": 0.2, "lr_scheduler": None}, "'warmup' has no effect on mel_stl, since lr_scheduler is null"),
        (MEL, {"lr": 0.1, "lr_scheduler.initial_value": 0.2}, "'lr' .*, since lr_scheduler.initial_value replaces it"),
        (SVM, {"lr": 0.1}, "'lr' has no effect on egemaps_svm_stl, whose head LinearSVM is fitted without gradients"),
        (SVM, {"augment.time_masks": 1}, "'augment.time_masks' has no effect"),
    ],
)
def test_a_setting_that_is_switched_off_is_refused(path, overrides, reason):
    with pytest.raises(UserError, match=reason):
        load_hparams(path, overrides)


def test_files_may_state_what_their_own_switch_turns_on(tmp_path):
    (tmp_path / "my.yaml").write_text("base: mel_stl.yaml\ndebug: false\ndebug_batches: 3\n")
    assert load_hparams(tmp_path / "my.yaml", {"debug": True})["debug_batches"] == 3
    load_hparams(tmp_path / "my.yaml")
    (tmp_path / "my.yaml").write_text("base: egemaps_svm_stl.yaml\nn_epochs: 3\n")
    with pytest.raises(UserError, match="my.yaml: 'n_epochs' has no effect on my, whose head LinearSVM"):
        load_hparams(tmp_path / "my.yaml")


def test_what_models_share_reaches_those_that_use_it():
    assert keep_used(SVM, {"lr": 0.1, "seed": 3}) == {"seed": 3}
    check_shared_overrides([MEL, SVM], {"lr": 0.1})
    with pytest.raises(UserError, match="'overrides.lr' has no effect on egemaps_svm_stl"):
        check_shared_overrides([SVM], {"lr": 0.1})
