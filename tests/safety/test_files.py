"""No file is believed: a checkpoint or an export that was altered is refused with a sentence."""

import copy
import errno
import json
import os
import random
import stat

import pytest
import torch
from torch import nn

import fastsnn
from fastsnn import deploy, files
from fastsnn.deploy import file as deploy_file
from fastsnn.errors import DeployError, RunError
from fastsnn.online import Trainer
from fastsnn.optim import STGR
from fastsnn.train import checkpoints
from fastsnn.train.config import Config
from fastsnn.train.experiment import Experiment

from ..cases import TORCH


@pytest.fixture(scope="module", params=["ottt", "rptt"])
def run(request, tmp_path_factory):
    """The folder of a run of two epochs that stopped in the second."""
    folder = tmp_path_factory.mktemp(request.param)
    config = Config(data="sequential-digits", rule=request.param, steps=8, epochs=2, batch_size=719)
    experiment = Experiment(config, folder)

    def stop_in_the_second(run):
        run.stop = run.progress.epoch == 1

    experiment.run(stop_in_the_second)
    return folder


def altered(run, tmp_path, data):
    (tmp_path / checkpoints.CHECKPOINT).write_bytes(data)
    return tmp_path


def test_a_checkpoint_resumes(run):
    experiment = Experiment.resume(run)
    assert (experiment.progress.epoch, experiment.progress.batch) == (1, 1)


def test_every_flipped_bit_is_refused(run, tmp_path):
    data, rng = (run / checkpoints.CHECKPOINT).read_bytes(), random.Random(0)
    spread = [rng.randrange(8 * len(data)) for _ in range(1300)]
    for bit in (*spread, *range(8 * len(data) - 200, 8 * len(data))):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path = altered(run, tmp_path, flipped) / checkpoints.CHECKPOINT
        with pytest.raises(RunError, match=r"--resume: .*(altered|format|readable)"):
            checkpoints.read(path)


def test_a_file_cut_short_is_refused(run, tmp_path):
    data = (run / checkpoints.CHECKPOINT).read_bytes()
    for size in (0, 1, 22, len(data) // 2, len(data) - 1):
        with pytest.raises(RunError, match="--resume"):
            Experiment.resume(altered(run, tmp_path, data[:size]))


def leaves(value, path=()):
    """Paths of all that a checkpoint holds, and of its containers."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], (*path, key))
    elif isinstance(value, list):
        for i in range(len(value)):
            yield from leaves(value[i], (*path, i))


def put(saved, path, value):
    saved = copy.deepcopy(saved)
    holder = saved
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return saved


OTHERS = (None, "8", -5, 2**70, float("nan"), [], {}, {"x": 1}, torch.zeros(1), torch.zeros(3, dtype=torch.uint8))
FREE = {("config", "backend"), ("config", "backward_steps")}  # None is a value of theirs


@pytest.mark.slow
def test_every_field_of_another_type_is_refused_by_itself(run, tmp_path):
    """With a checksum that fits, as a crafted file may have."""
    path = run / checkpoints.CHECKPOINT
    saved = torch.load(path, weights_only=True)
    crafted = tmp_path / checkpoints.CHECKPOINT
    count = 0
    for at in leaves(saved):
        skipped = not at or at == ("format",) or at in FREE or at[:1] == ("seconds_before",)
        if skipped or (len(at) > 4 and at[0] == "progress"):
            continue
        for value in OTHERS if at[0] != "trainer" or len(at) < 4 else OTHERS[:6]:
            original = saved
            for key in at:
                original = original[key]
            if not isinstance(value, torch.Tensor) and (at, value) in (
                (("config", "seed"), -5),
                ((*at[:3], "z_scores"), {}),
                ((*at[:3], "above_threshold"), {}),
                ((*at[:3], "mpdr_loss"), {}),
            ):
                continue  # which a run may have
            same = type(value) is type(original) and not isinstance(value, torch.Tensor) and value == original
            if same or at[-1] in checkpoints.OF_TORCH:
                continue
            fields = put(saved, at, value)
            fields.pop("format")
            checkpoints.write(crafted, fields)
            with pytest.raises(RunError, match=r"--resume|--device"):
                Experiment.resume(tmp_path)
            count += 1
    assert count > 200


def test_an_altered_field_without_its_checksum_is_refused(run, tmp_path):
    saved = torch.load(run / checkpoints.CHECKPOINT, weights_only=True)
    saved["trainer"]["scheduler"]["last_epoch"] = 1
    torch.save(saved, tmp_path / checkpoints.CHECKPOINT)
    with pytest.raises(RunError, match="its checksum does not fit"):
        Experiment.resume(tmp_path)


def test_a_checkpoint_of_the_first_version_resumes_with_a_warning(run, tmp_path):
    saved = torch.load(run / checkpoints.CHECKPOINT, weights_only=True)
    saved["format"] = checkpoints.UNCHECKED
    del saved["config"]["parallel"]
    torch.save(saved, tmp_path / checkpoints.CHECKPOINT)
    with pytest.warns(UserWarning, match=r"is of fastsnn 0\.1 and has no checksum: its bytes are not checked"):
        old = Experiment.resume(tmp_path)
    new = Experiment.resume(run)
    assert old.progress == new.progress
    for name, value in new.net.state_dict().items():
        assert torch.equal(old.net.state_dict()[name], value)


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def write(file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(RunError, match=r"No space left on device\); the file from before, if any, is unchanged"):
        files.write_whole(path, write)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "before"


def test_what_a_crash_left_beside_a_file_goes(tmp_path):
    for name in (".file.999999999", ".file.abc_123", f".file.{os.getppid()}", ".other.999999999"):
        (tmp_path / name).touch()
    files.write_whole(tmp_path / "file", lambda file: file.write(b"x"))
    assert {p.name for p in tmp_path.iterdir()} == {"file", f".file.{os.getppid()}", ".other.999999999"}


@pytest.mark.skipif(os.name == "nt", reason="needs a umask")
def test_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_json(tmp_path / "file", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def network():
    return nn.Sequential(fastsnn.BinaryLinear(40, 20)).eval()


HEADERS = [("folded", value) for value in ("x", "1", "null", "[]")]
HEADERS += [("notes", value) for value in ("x", "[]", "1", "[" * 100_000)]
BITS = (
    "[]",
    "1",
    '{"0": "1"}',
    '{"0": -1}',
    '{"0": 1.0}',
    '{"0": 1000000000000}',
    '{"0": null}',
    '{"0": true}',
    '{"1": 1}',
)
HEADERS += [("layers", value) for value in (*BITS, '{"1": 1}', '{"0": 2}', "9" * 5000)]


@pytest.mark.parametrize(("name", "value"), HEADERS, ids=lambda value: value[:20])
def test_a_crafted_header_is_refused(name, value, tmp_path):
    tensors = {key: tensor.clone() for key, tensor in deploy.pack(network()).state_dict().items()}
    header = {"format": deploy_file.FORMAT, "version": deploy_file.VERSION, "fastsnn": "0", "folded": "false"}
    header |= {"layers": '{"0": 1}', "notes": "{}", name: value}
    header["sha256"] = deploy_file._digest(tensors, header)
    path = tmp_path / "net.safetensors"
    path.write_bytes(deploy_file._safetensors().torch.save(tensors, metadata=header))
    with pytest.raises(DeployError):
        deploy.load(path, network())


def test_an_export_is_not_cast_to_the_networks_type(tmp_path):
    path = tmp_path / "net.safetensors"
    deploy.save(deploy.pack(network()), path)
    with pytest.raises(DeployError, match=r"0\.bias is torch\.float32 and the network's torch\.float64"):
        deploy.load(path, network().double())


def test_a_refused_trainer_state_changes_nothing():
    def trainer():
        net = nn.Linear(3, 3)
        return Trainer(net, torch.optim.SGD(net.parameters(), 0.1, momentum=0.9))

    mine, state = trainer(), trainer().state_dict()
    state["optimizer"]["param_groups"] *= 2
    before = copy.deepcopy(mine.state_dict())
    with pytest.raises(ValueError, match="different number of parameter groups"):
        mine.load_state_dict(state)
    assert json.dumps(mine.state_dict()["optimizer"]) == json.dumps(before["optimizer"])
    assert torch.equal(mine.net.weight, before["net"]["weight"])


def stepped(n=3):
    p = nn.Parameter(torch.ones(n))
    optimizer = STGR(torch.optim.SGD([p], 0.1, momentum=0.9))
    p.grad = torch.ones(n)
    optimizer.step()
    return p, optimizer


@pytest.mark.parametrize("what", ["groups", "average", "momentum", "epoch"])
def test_a_refused_state_of_stgr_changes_nothing(what):
    p, optimizer = stepped()
    state = copy.deepcopy(optimizer.state_dict())
    state["state"][0]["average"].fill_(99)
    if what == "groups":
        state["optimizer"] = {"state": {}, "param_groups": []}
    elif what == "average":
        state["state"][0]["average"] = torch.zeros(4)
    elif what == "momentum":
        state["optimizer"]["state"][0]["momentum_buffer"] = torch.zeros(4)
    else:
        state["epoch"] = -1
    before = optimizer.state[p]["average"].clone()
    with pytest.raises(ValueError, match=r"group|needs one shape|epoch"):
        optimizer.load_state_dict(state)
    assert torch.equal(optimizer.state[p]["average"], before)
    p.grad = torch.ones(3)
    optimizer.step()


def test_a_parameter_that_grew_and_a_gradient_of_another_type_move_nothing():
    p, optimizer = stepped(10)
    p.grad = None
    p.data = torch.randn(1000)
    p.grad = torch.ones_like(p)
    before = p.detach().clone()
    with pytest.raises(ValueError, match=r"average is \(10,\), .* and its parameter \(1000,\)"):
        optimizer.step()
    assert torch.equal(p, before)
    p, optimizer = stepped()
    if TORCH < (2, 11):
        return  # which refuses such a gradient by itself
    p.grad = None
    p.grad_dtype = torch.float64
    p.grad = torch.ones(3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"grad is \(3,\), torch\.float64"):
        optimizer.step()
