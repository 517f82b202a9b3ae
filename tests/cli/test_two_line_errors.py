"""A mistake on the command line is one line, and one that says where the help is."""

import pytest
from commands import run


@pytest.mark.parametrize(
    ("line", "said", "where"),
    [
        ("embd", "no command is called 'embd' (did you mean 'embed'?)", ""),
        ("--nonsense", "unrecognized arguments: --nonsense", ""),
        ("embed", "the following arguments are required: -o/--output", "embed"),
        ("embed a -o b --windwo 3", "no option --windwo (did you mean '--window'?)", "embed"),
        ("embed a -o b --windwo=3", "no option --windwo (did you mean '--window'?)", "embed"),
        ("embed a -o b -x", "there is no option -x\n", "embed"),
        ("show a -o b.png c", "unexpected 'c'", "show"),
        ("timeline a --text b --fps fast", "invalid float value: 'fast'", "timeline"),
        ("train clasifier", "no command is called 'clasifier' (did you mean 'cla", "train"),
        ("train classifier", "arguments are required: --data, -o/--output", "train classifier"),
        ("evaluate retrieval --data a -y", "there is no option -y\n", "evaluate retrieval"),
        ("check -q -v", "not allowed with argument -q/--quiet", "check"),
        ("info --\x1b[2J", "there is no option --\\x1b[2J\n", "info"),
    ],
)
def test_a_mistake_is_two_lines(
    line: str, said: str, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(*line.split(" "))
    printed = capsys.readouterr()
    assert (stopped.value.code, printed.out) == (2, "")
    program = f"videoprism-mlx {where}".strip()
    described = "the command" if where not in ("", "train") else "the commands"
    first, second = printed.err.splitlines()
    assert first.startswith(f"{program}: ") and said in printed.err
    assert second == f"`{program} --help` describes {described}"
