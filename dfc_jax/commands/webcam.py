"""`dfc webcam`: the people before a camera, followed live."""

import argparse
from typing import TYPE_CHECKING, Any

from dfc_jax.commands.arguments import UsageError, add_network, check_network, ending, whole
from dfc_jax.commands.logs import add_verbosity
from dfc_jax.commands.video import Drawn, add_results, check_results, follow, wanted

if TYPE_CHECKING:
    import numpy as np

KEYS = "in the window: q or Escape ends, m shows and hides the meshes, f mirrors the picture"


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "webcam",
        help="follow the people before a camera",
        description=KEYS,
        epilog=ending("dfc webcam", "dfc webcam 1 --track faces.csv --no-window"),
    )
    parser.add_argument(
        "camera", nargs="?", type=whole(0, 99), default=0, metavar="N", help="its number (0)"
    )
    parser.add_argument("--no-window", action="store_true", help="show nothing; Ctrl-C ends")
    add_results(parser)
    add_network(parser)
    add_verbosity(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.no_window and not any(path for path, _ in wanted(arguments)):
        raise UsageError("--no-window leaves nothing to do; give --out or --track with it")
    check_network(arguments)
    check_results(arguments, None)
    show = None if arguments.no_window else Window(f"dfc webcam {arguments.camera}: q ends")
    from dfc_jax.video import open_video

    frames = open_video(arguments.camera)
    return follow(arguments, frames, f"camera {arguments.camera}", show)


class Window:
    """Shows pictures, and heeds `KEYS`.

    Raises:
      UsageError: there is no display.
    """

    def __init__(self, title: str) -> None:
        # OpenCV as it is installed here has no windows; Python's own need nothing.
        try:
            import tkinter

            self._window: Any = tkinter.Tk()
        except Exception as error:  # `tkinter.TclError`, whose module may be what is missing
            raise UsageError(_NO_DISPLAY.format(error)) from error
        self._window.title(title)
        self._label = tkinter.Label(self._window)
        self._label.pack()
        self._keys: list[str] = []
        self._mirrored = False
        self._picture: Any = None  # Tk keeps none itself
        self._window.bind("<Key>", lambda event: self.press(event.keysym))
        self._window.protocol("WM_DELETE_WINDOW", lambda: self.press("q"))

    def __call__(self, drawn: Drawn, picture: "np.ndarray") -> bool:
        """Show a picture (H, W, 3) uint8; False when the user has seen enough."""
        from PIL import Image, ImageTk

        shown = picture[:, ::-1] if self._mirrored else picture
        self._picture = ImageTk.PhotoImage(Image.fromarray(shown), master=self._window)
        self._label.configure(image=self._picture)
        self._window.update()
        for key in self._keys:
            if key == "m":
                drawn.mesh = not drawn.mesh
            elif key == "f":
                self._mirrored = not self._mirrored
        go_on = not {"q", "Escape"}.intersection(self._keys)
        self._keys.clear()
        if not go_on:
            self.close()
        return go_on

    def press(self, key: str) -> None:
        """As if a key of this name had been pressed."""
        self._keys.append(key)

    def close(self) -> None:
        """Take the window away."""
        if self._window is not None:
            self._window.destroy()
        self._window = None


_NO_DISPLAY = "no window can be shown ({}); give --no-window, with --out or --track"
