"""A run that is told to end notes it, and a second signal acts."""

import os
import signal
import threading

import pytest

from dfc_jax.training.signals import stop_on_signal


@pytest.fixture
def handlers():
    """Set the handlers of SIGTERM and SIGINT; those that the shell left, which may ignore SIGINT,
    are back afterwards."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}

    def install(handler) -> None:
        for number in numbers:
            signal.signal(number, handler)

    yield install
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_once_and_the_second_acts(number, handlers) -> None:
    def terminated(*_):
        raise KeyboardInterrupt

    handlers(terminated)
    with pytest.raises(KeyboardInterrupt), stop_on_signal() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        os.kill(os.getpid(), number)
    with stop_on_signal():
        assert signal.getsignal(number) is not terminated
    assert signal.getsignal(signal.SIGTERM) is terminated
    assert signal.getsignal(signal.SIGINT) is terminated


def test_signals_that_the_shell_has_off_stay_off(handlers) -> None:
    handlers(signal.SIG_IGN)
    with stop_on_signal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_install_no_handlers() -> None:
    found = []

    def work():
        with stop_on_signal() as stop:
            found.append((stop(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, signal.getsignal(signal.SIGTERM))]
