"""The `dfc` command, called in this process, and grey photographs for it."""

from PIL import Image

from dfc_jax import cli


def run(capsys, *arguments):
    """Exit code, standard output and standard error."""
    try:
        code = cli.main([str(a) for a in arguments])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def photo(path, size=(200, 160)):
    Image.new("RGB", size, "grey").save(path)
    return path


def names_in(folder):
    return {path.name for path in folder.iterdir()}
