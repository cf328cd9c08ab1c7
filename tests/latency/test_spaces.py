import pytest
from latkit.devices.errors import UsageError
from latkit.latency.blocks import ConvBlock, Head
from latkit.latency.network import Network
from latkit.latency.spaces import ProfilableSpace, known_spaces, load_space, network_of

SPACE = """
from dataclasses import dataclass

from latkit.latency.blocks import ConvBlock, Head
from latkit.latency.network import Network


@dataclass(frozen=True)
class Tiny:
    name: str = "tiny"

    def blocks(self):
        stems = [ConvBlock(in_channels=3, height=8, width=8, out_channels=c) for c in (8, 16)]
        return [*stems, *(self.head(stem) for stem in stems)]

    def head(self, stem):
        return Head(in_channels=stem.out_channels, height=8, width=8, hidden_channels=8, classes=2)

    def sample_networks(self, count, seed):
        return [self.network((index % 2,)) for index in range(count)]

    def architecture(self, choices):
        return tuple(choices)

    def network(self, architecture):
        stem = self.blocks()[architecture[0]]
        return Network.chain([stem, self.head(stem)])


SPACE = Tiny()
NUMBER = 7


def broken():
    raise RuntimeError("out of paper")
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(SPACE)
    return file


@pytest.mark.parametrize("name", ["Tiny", "SPACE"])
def test_space_of_a_file_is_made_or_taken(path, name):
    space = load_space(f"{path}:{name}")
    assert isinstance(space, ProfilableSpace)
    assert space.name == "tiny"
    assert len(space.blocks()) == 4


def test_network_is_named_by_its_choices(path):
    network = network_of(load_space(f"{path}:SPACE"), [1])
    stem = ConvBlock(in_channels=3, height=8, width=8, out_channels=16)
    head = Head(in_channels=16, height=8, width=8, hidden_channels=8, classes=2)
    assert network == Network.chain([stem, head])


def test_unknown_space_lists_the_known():
    with pytest.raises(UsageError) as caught:
        load_space("nowhere")
    assert "mobile" in known_spaces()
    assert "mobile" in str(caught.value)
    assert "path/file.py:NAME" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("NOTHING", "has no NOTHING"),
        ("NUMBER", "int"),
        ("broken", "RuntimeError: out of paper"),
        ("ConvBlock", "TypeError"),
        ("dataclass", "gives a"),
    ],
)
def test_what_is_no_space_is_a_usage_error(path, name, said):
    with pytest.raises(UsageError, match=said):
        load_space(f"{path}:{name}")


def test_file_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        load_space(f"{tmp_path}/none.py:SPACE")


@pytest.mark.parametrize("text", ["def (", "import no_such_package_anywhere", "1 / 0"])
def test_file_that_does_not_run_is_a_usage_error_with_its_cause(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"running .*mine\.py failed: \w+Error"):
        load_space(f"{path}:SPACE")


def test_space_without_networks_by_choices_says_so(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "class Bare:\n"
        "    name = 'bare'\n"
        "    def blocks(self): return []\n"
        "    def sample_networks(self, count, seed): return []\n"
    )
    with pytest.raises(UsageError, match="bare has no architecture"):
        network_of(load_space(f"{path}:Bare"), [0])


def test_spaces_that_come_with_the_package_load():
    for name in known_spaces():
        space = load_space(name)
        assert space.blocks()
        networks = space.sample_networks(2, seed=1)
        assert networks == space.sample_networks(2, seed=1)
        assert len(networks) == 2
