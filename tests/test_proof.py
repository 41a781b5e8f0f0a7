"""The proof before training: a sound set-up passes, and each planted fault is named by the check that fails."""

import pytest
import torch
from torch import nn

from distill.attention.pairs import Pair
from distill.distiller import Distiller
from distill.errors import ProofFailed
from distill.proof import SAME, Check, Proof, _fitted_already, _varied, prove
from distill.teacher import Teacher
from distill.terms.attention import AttentionTerm
from distill.terms.base import Batch, Reading
from distill.terms.gates import GateTerm
from distill.terms.logits import LogitsTerm


class Toy(nn.Module):
    """Two branches, `left` and `right`, each with a stem of its own, so that a fault in one leaves the other sound."""

    def __init__(self, seed, width=4):
        super().__init__()
        torch.manual_seed(seed)
        self.left = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.Conv2d(width, width, 1))
        self.right = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.Conv2d(width, width, 1))
        self.idle = nn.Conv2d(width, width, 1)

    def forward(self, x):
        return self.left(x) + self.right(x)


PAIRS = [Pair("L", "left", "left"), Pair("R", "right", "right")]


@pytest.fixture
def student():
    return Toy(seed=1).train()


@pytest.fixture
def teacher():
    return Teacher(Toy(seed=2, width=6), ["left", "right"], stride=1)


def passes(distiller, count=2):
    images = torch.rand(count, 4, 3, 12, 8, generator=torch.Generator().manual_seed(0))

    def make(batch):
        def run(student):
            with distiller.watch(student, Batch(batch)) as step:
                loss = student(batch).square().mean()
            return loss, step

        return run

    return [make(batch) for batch in images]


def proof_of(student, teacher, pairs=PAIRS, share=0.2, fixed=None, count=2):
    distiller = Distiller(teacher, [AttentionTerm(pairs)], {})
    return prove(distiller, student, passes(distiller, count), share, None if fixed is None else {"attention": fixed})


def failed(proof):
    """The failing checks, by name."""
    return {check.name: check.detail for check in proof.failed}


def replace_output(module, change):
    """Plant a fault: the module's output is passed through `change`."""
    module.register_forward_hook(lambda _m, _i, output: change(output))


# ---- all is well


def test_a_sound_set_up_passes_every_check(student, teacher):
    proof = proof_of(student, teacher)
    assert [check.name for check in proof.checks] == ["taps", "teacher", "pair L", "pair R", "weight of attention"]
    assert not proof.failed and not any(check.warning for check in proof.checks)
    assert proof.checks[0].detail == "2 student and 2 teacher layers fired"
    assert "into 6 parameters" in proof.checks[2].detail  # the branch's two convolutions and its BatchNorm
    proof.raise_if_failed()
    for module in (student, teacher.module):
        assert not any(m._forward_hooks for m in module.modules())


def test_the_measured_weight_gives_the_share_that_was_asked_for(student, teacher):
    proof = proof_of(student, teacher, share=0.3)
    distiller = Distiller(teacher, [AttentionTerm(PAIRS)], proof.weights)
    norms = []
    for run in passes(distiller):
        task, step = run(student)
        features = list(step.features.values())
        for loss in (task, sum(step.losses().values())):
            grads = torch.autograd.grad(loss, features, retain_graph=True)
            norms.append(sum(g.square().sum() for g in grads).sqrt().item())
    assert sum(norms[1::2]) / sum(norms[::2]) == pytest.approx(0.3, rel=1e-4)
    assert f"{proof.weights['attention']:.4g}, measured: 0.3 of" in proof.checks[-1].detail


def test_a_given_weight_is_taken_and_its_share_told(student, teacher):
    proof = proof_of(student, teacher, fixed=5.0)
    assert proof.weights == {"attention": 5.0}
    measured = proof_of(Toy(seed=1).train(), teacher, share=1.0).weights["attention"]
    assert f"5, fixed: {5 / measured:.3g} of the task's" in proof.checks[-1].detail


def test_a_huge_measured_weight_is_worth_a_warning_and_a_given_one_is_not(student, teacher):
    """As of class scores of a teacher that sees nothing: there is hardly anything to teach."""
    for share, fixed, warned in ((0.2, None, False), (1e6, None, True), (0.2, 1e6, False)):
        found = {check.name: check for check in proof_of(student, teacher, share=share, fixed=fixed).checks}[
            "weight of attention"
        ]
        assert found.ok and found.warning == warned == ("hardly anything to teach" in found.detail)


def test_the_distiller_is_left_with_the_weight_which_does_not_depend_on_the_one_before(student, teacher):
    distiller = Distiller(teacher, [AttentionTerm(PAIRS)], {"attention": 123.0})
    assert prove(distiller, student, passes(distiller), 0.2).weights == distiller.weights
    assert distiller.weights == proof_of(Toy(seed=1).train(), teacher).weights


# ---- taps


@pytest.mark.parametrize("pair", [Pair("X", "idle", "left"), Pair("X", "left", "idle")])
def test_a_dead_tap_in_either_network(student, pair):
    teacher = Teacher(Toy(seed=2), [pair.teacher], stride=1)
    proof = proof_of(student, teacher, [pair])
    assert list(failed(proof)) == ["taps"] and "'idle' (Conv2d) did not run" in failed(proof)["taps"]
    with pytest.raises(ProofFailed, match="taps: layer 'idle'"):
        proof.raise_if_failed()


# ---- the student's side


def test_a_detached_pair(student, teacher):
    replace_output(student.right, torch.Tensor.detach)
    proof = proof_of(student, teacher)
    assert list(failed(proof)) == ["pair R"] and "detached" in failed(proof)["pair R"]


def test_a_pair_whose_gradient_is_zero_everywhere(student, teacher):
    replace_output(student.right, lambda output: output * 0)
    proof = proof_of(student, teacher)
    assert list(failed(proof)) == ["pair R"] and "into the student is zero" in failed(proof)["pair R"]


def test_identical_maps():
    student = Toy(seed=1).eval()
    student.left[0].weight.data += 0.1  # one branch differs, the other is the teacher's own
    proof = proof_of(student, Teacher(Toy(seed=1), ["left", "right"], stride=1))
    assert list(failed(proof)) == ["pair R"] and "the maps are identical" in failed(proof)["pair R"]


@pytest.mark.parametrize("form", ["l2", "squared", "mean"])
def test_maps_that_are_close_are_not_identical(form):
    student = Toy(seed=1).eval()
    for branch in (student.left, student.right):
        branch[0].weight.data *= 1 + 0.01 * torch.randn(4, 1, 1, 1)
    distiller = Distiller(Teacher(Toy(seed=1), ["left", "right"], stride=1), [AttentionTerm(PAIRS, form=form)], {})
    assert not prove(distiller, student, passes(distiller), 0.2).failed


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("fixed", [None, 1.0])
@pytest.mark.parametrize("whose", ["student", "teacher"])
def test_a_map_that_is_not_finite(student, teacher, value, fixed, whose):
    replace_output((student if whose == "student" else teacher.module).left, lambda output: output + value)
    proof = proof_of(student, teacher, fixed=fixed)
    assert "a map is not finite" in failed(proof)["pair L"] and "pair R" not in failed(proof)


class Spoiled(torch.autograd.Function):
    """Passes values on and spoils gradients."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * float("nan")


@pytest.mark.parametrize("fixed", [None, 1.0])
def test_a_gradient_that_is_not_finite(student, teacher, fixed):
    replace_output(student.left[0], Spoiled.apply)
    proof = proof_of(student, teacher, fixed=fixed)
    assert list(failed(proof)) == ["pair L"] and "is nan" in failed(proof)["pair L"]


def test_a_wholly_frozen_path_is_an_error(student, teacher):
    student.left.requires_grad_(False)
    proof = proof_of(student, teacher)
    assert list(failed(proof)) == ["pair L"]
    assert "all 6 parameters before it are frozen" in failed(proof)["pair L"]


def test_a_partly_frozen_path_is_a_warning(student, teacher):
    student.left[0].requires_grad_(False)
    proof = proof_of(student, teacher)
    assert not proof.failed
    (warning,) = [check for check in proof.checks if check.warning]
    assert warning.name == "pair L" and "into 4 parameters; 2 before it are frozen" in warning.detail


# ---- the teacher's side


def test_a_teacher_in_train_mode(student, teacher):
    teacher.module.right[2].train()
    assert failed(proof_of(student, teacher)) == {"teacher": "'right.2' is in train mode"}


def test_a_teacher_whose_batchnorm_learns(student, teacher):
    teacher.module.right[1].train()
    detail = failed(proof_of(student, teacher))["teacher"]
    assert "'right.1' is in train mode" in detail and "'right.1.running_mean' moved" in detail


def test_statistics_that_move_in_eval_mode(student, teacher):
    def count(_module, _inputs, _output):
        teacher.module.left[1].running_var.add_(1)

    teacher.module.left.register_forward_hook(count)
    assert failed(proof_of(student, teacher)) == {"teacher": "'left.1.running_var' moved"}


def test_a_trainable_teacher(student, teacher):
    teacher.module.left[0].bias.requires_grad_()
    assert failed(proof_of(student, teacher)) == {"teacher": "'left.0.bias' is trainable"}


def test_a_teacher_whose_features_carry_gradients(student, teacher):
    leaf = torch.rand(4, 6, 6, 4, requires_grad=True)
    seen = []
    replace_output(teacher.module.left, lambda output: seen.append(1) or (leaf if len(seen) == 1 else output))
    assert failed(proof_of(student, teacher)) == {"teacher": "its features carry gradients"}  # in the first pass only


# ---- the weight


def test_weight_zero(student, teacher):
    proof = proof_of(student, teacher, fixed=0.0)
    assert list(failed(proof)) == ["weight of attention"] and "it is zero" in failed(proof)["weight of attention"]
    proof.raise_if_failed(forgive=["weight of attention"])
    with pytest.raises(ProofFailed):
        proof.raise_if_failed(forgive=["taps"])


def test_a_weight_that_cannot_be_measured(student, teacher):
    for branch in (student.left, student.right):
        replace_output(branch, torch.Tensor.detach)
    student.scale = nn.Parameter(torch.ones(1))
    replace_output(student, lambda output: output * student.scale)
    assert {"pair L", "pair R", "weight of attention"} == set(failed(proof_of(student, teacher)))


# ---- several terms


class Gated(nn.Module):
    """Features, and two gates on them, one behind the other."""

    def __init__(self, seed, open_=False):
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.q = nn.Conv2d(4, 1, 1)
        self.alpha = nn.Sigmoid()
        self.head = nn.Conv2d(4, 2, 1)
        self.q.weight.data *= 0 if open_ else 10

    def forward(self, x):
        features = self.stem(x).relu()
        return self.head(features * self.alpha(self.q(features)))


STEM, GATE = Pair("S", "stem", "stem"), Pair("G2", "alpha", "alpha", kind="gate")


def two_terms(teacher_open=False):
    teacher = Teacher(Gated(2, teacher_open), ["stem", "alpha"], stride=1)
    return Distiller(teacher, [AttentionTerm([STEM]), GateTerm([GATE])], {})


def shares(distiller, student):
    """The gradient of each term's losses over the task's, at the layers that this term reads."""
    found = {term.name: [0.0, 0.0] for term in distiller.terms}
    for run in passes(distiller):
        task, step = run(student)
        for term in distiller.terms:
            own = sum(loss for name, loss in step.losses().items() if step.terms[name] == term.name)
            features = [step.features[layer] for layer in term.layers()[0]]
            for i, loss in enumerate((task, own)):
                grads = torch.autograd.grad(loss, features, retain_graph=True)
                found[term.name][i] += sum(g.square().sum() for g in grads).sqrt().item()
    return {name: own / task for name, (task, own) in found.items()}


def test_each_term_reaches_the_share_at_its_own_layers():
    distiller, student = two_terms(), Gated(1).train()
    proof = prove(distiller, student, passes(distiller), 0.3)
    assert not proof.failed and set(proof.weights) == {"attention", "gates"}
    assert proof.weights["attention"] != pytest.approx(proof.weights["gates"], rel=0.1)
    assert shares(distiller, student) == pytest.approx({"attention": 0.3, "gates": 0.3}, rel=1e-4)
    assert [check.name for check in proof.checks] == [
        *("taps", "teacher", "pair S", "pair G2", "weight of attention", "weight of gates")
    ]


def test_a_terms_weight_does_not_depend_on_the_terms_beside_it():
    both = prove(distiller := two_terms(), Gated(1).train(), passes(distiller), 0.2).weights
    for term in (AttentionTerm([STEM]), GateTerm([GATE])):
        alone = Distiller(Teacher(Gated(2), list(term.layers()[1]), stride=1), [term], {})
        assert prove(alone, Gated(1).train(), passes(alone), 0.2).weights == pytest.approx({term.name: both[term.name]})


def test_a_weight_is_given_for_one_term_and_measured_for_the_other():
    measured = prove(distiller := two_terms(), Gated(1).train(), passes(distiller), 0.2)
    proof = prove(distiller := two_terms(), Gated(1).train(), passes(distiller), 0.2, {"attention": 7.0})
    assert proof.weights == {"attention": 7.0, "gates": measured.weights["gates"]} == distiller.weights
    details = {check.name: check.detail for check in proof.checks}
    assert "7, fixed" in details["weight of attention"] and "measured: 0.2 of" in details["weight of gates"]


def test_a_weight_of_zero_is_named_by_its_term():
    proof = prove(distiller := two_terms(), Gated(1).train(), passes(distiller), 0.2, {"gates": 0.0})
    assert failed(proof) == {"weight of gates": "it is zero: the gates loss has no effect"}


def test_a_gate_that_is_the_same_everywhere_teaches_nothing():
    proof = prove(distiller := two_terms(teacher_open=True), Gated(1).train(), passes(distiller), 0.2)
    assert failed(proof) == {
        "pair G2": "what it is to follow is the same everywhere: "
        "there is nothing to learn: leave it out with --gate-layers"
    }


@pytest.mark.parametrize(("spread", "warning"), [(0.01, True), (0.1, False)])
def test_a_gate_that_hardly_varies_is_worth_a_warning(spread, warning):
    check = _varied(Check("pair G2", True, "loss 0.1"), spread)
    assert check.ok and check.warning == warning and ("hardly varies (std 0.010)" in check.detail) == warning


def labelled(distiller, *masks):
    images = torch.rand(2, 4, 3, 12, 8, generator=torch.Generator().manual_seed(0))

    def make(batch, masks):
        def run(student):
            with distiller.watch(student, Batch(batch, masks=masks)) as step:
                loss = student(batch).square().mean()
            return loss, step

        return run

    return [make(batch, masks[i % len(masks)]) for i, batch in enumerate(images)]


def test_labels_without_a_teacher_have_no_check_of_a_teacher():
    distiller = Distiller(None, [GateTerm([Pair("G2", "alpha", "", kind="gate")], "truth")], {})
    masks = torch.zeros(4, 12, 8, dtype=torch.long)
    proof = prove(distiller, Gated(1).train(), labelled(distiller, masks + (torch.arange(8) > 4)), 0.2)
    assert not proof.failed
    assert [check.name for check in proof.checks] == ["taps", "pair G2", "weight of gates"]
    assert proof.checks[0].detail == "1 student and 0 teacher layers fired"
    proof = prove(distiller, Gated(1).train(), labelled(distiller, masks), 0.2)
    assert list(failed(proof)) == ["pair G2"] and "the same everywhere" in failed(proof)["pair G2"]


@pytest.mark.parametrize("first", [0, 1])
def test_a_single_batch_without_foreground_is_no_fault(first):
    distiller = Distiller(None, [GateTerm([Pair("G2", "alpha", "", kind="gate")], "truth")], {})
    empty = torch.zeros(4, 12, 8, dtype=torch.long)
    batches = [empty, empty + (torch.arange(8) > 4)]
    proof = prove(distiller, Gated(1).train(), labelled(distiller, batches[first], batches[1 - first]), 0.2)
    assert not proof.failed


def test_the_output_is_compared_beside_the_maps():
    teacher = Teacher(Gated(2), ["stem", "head"], stride=1)
    distiller = Distiller(teacher, [AttentionTerm([STEM]), LogitsTerm("head", "head")], {})
    student = Gated(1).train()
    proof = prove(distiller, student, passes(distiller), 0.2)
    assert not proof.failed and set(proof.weights) == {"attention", "logits"}
    assert shares(distiller, student) == pytest.approx({"attention": 0.2, "logits": 0.2}, rel=1e-4)
    same = Distiller(Teacher(Gated(1), ["head"], stride=1), [LogitsTerm("head", "head")], {})
    proof = prove(same, Gated(1).train(), passes(same), 0.2, {"logits": 1.0})
    assert "identical" in failed(proof)["class scores"]


# ---- what is made of the answer


def test_every_failure_is_named_in_the_error_and_all_checks_come_with_it(student, teacher):
    replace_output(student.right, torch.Tensor.detach)
    teacher.module.left.train()
    proof = proof_of(student, teacher)
    with pytest.raises(ProofFailed, match=r"teacher: 'left' is in train mode; .*; pair R: detached") as error:
        proof.raise_if_failed()
    assert error.value.checks == proof.checks and error.value.exit_code == 1


def test_how_a_check_reads():
    assert str(Check("taps", True, "fired")) == "  ok  taps: fired"
    assert str(Check("taps", True, "late", warning=True)) == "warn  taps: late"
    assert str(Check("taps", False, "silent")) == "FAIL  taps: silent"
    assert Proof((), {}).raise_if_failed() is None


class Boxed(AttentionTerm):
    """Compares only what is bright: nothing, in a dark image."""

    def __call__(self, student, teacher, batch):
        found = super().__call__(student, teacher, batch)
        bright = (batch.images.amax() > 0).float()
        return {name: Reading(bright * reading.loss, reading.figures) for name, reading in found.items()}


@pytest.mark.parametrize(("dark", "passing"), [((0,), True), ((0, 1), False)])
def test_first_images_without_objects_do_not_fail_a_pair(student, teacher, dark, passing):
    distiller = Distiller(teacher, [Boxed(PAIRS)], {})
    images = torch.rand(2, 4, 3, 12, 8, generator=torch.Generator().manual_seed(0))
    images[list(dark)] = 0

    def make(batch):
        def run(student):
            with distiller.watch(student, Batch(batch)) as step:
                loss = student(batch).square().mean()
            return loss, step

        return run

    proof = prove(distiller, student, [make(batch) for batch in images], 0.2)
    assert ("pair L" not in failed(proof)) == passing


def test_outputs_that_are_the_teachers_already_are_a_warning_where_maps_differ():
    """As a student that was fitted to a teacher of hardly any confidence has them."""
    same, fine = (
        Check("class scores", False, f"{SAME} (loss 2e-06): there is nothing to learn"),
        Check("pair P3", True, ""),
    )
    found = _fitted_already({"at_P3": fine, "at_cls": same}, {"at_cls"})
    assert found["at_cls"].ok and found["at_cls"].warning and "hardly anything to learn" in found["at_cls"].detail
    assert _fitted_already({"at_cls": same}, {"at_cls"}) == {"at_cls": same}  # the student itself, for instance
    pair = Check("pair P4", False, same.detail)
    assert _fitted_already({"at_P3": fine, "at_P4": pair}, {"at_cls"})["at_P4"] == pair
