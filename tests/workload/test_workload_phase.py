import pytest
from hypothesis import given
from workload_models import phases

from smesim.errors import WorkloadError
from smesim.workload import Phase


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        ("prefill:128", Phase("prefill", 1, 128, 0)),
        ("prefill:128,past=64,batch=2", Phase("prefill", 2, 128, 64)),
        (" prefill:7, batch=3 ", Phase("prefill", 3, 7, 0)),
        ("decode:1024", Phase("decode", 1, 1, 1023)),
        ("decode:1,batch=4", Phase("decode", 4, 1, 0)),
    ],
)
def test_parse(text, phase):
    assert Phase.parse(text) == phase


def test_a_decode_context_counts_the_new_token():
    phase = Phase.decode(1024, batch=4)
    assert (phase.past, phase.context, phase.rows) == (1023, 1024, 4)
    assert Phase.prefill(8, past=3, batch=2).context == 11


@given(phases(largest=5000))
def test_text_and_back(phase):
    assert Phase.parse(str(phase)) == phase


@pytest.mark.parametrize(
    "text",
    [
        "", "prefill", "prefill:", "prefill:0", "prefill:-1", "prefill:1.5", "prefill:x", "prefill:nan",
        "prefill:inf", "prefill:٤", "prefill:4,", "prefill:4,batch", "prefill:4,batch=0", "prefill:4,past=-1",
        "prefill:4,foo=1", "prefill:4,past=1,past=2", "prefill:" + "9" * 5000, "prefill:2147483647,batch=2",
        "decode:0", "decode:4,past=1", "train:4",
    ],
)  # fmt: skip
def test_bad_phases_are_one_clear_error(text):
    with pytest.raises(
        WorkloadError, match=r"(accepted: .*(prefill|whole)|given twice|the most a program holds)"
    ):
        Phase.parse(text)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Phase("decode", 1, 2, 0),
        lambda: Phase("train", 1, 1, 0),
        lambda: Phase.prefill(True),
        lambda: Phase.prefill(1.0),
        lambda: Phase.decode(2.0),
        lambda: Phase.prefill(1, past=-1),
    ],
)
def test_bad_values_are_refused(make):
    with pytest.raises(WorkloadError, match="accepted"):
        make()
