//! The terminal: taken for the view, and given back as it was, however the view ends.
//!
//! It is given back on drop, on a panic, before a stop. What cannot be caught (SIGKILL) leaves it
//! as it is: `reset` helps.

use std::io::{self, BufWriter, IsTerminal, Stdout};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode,
};
use ratatui::{Frame, Terminal};
use rustix::process::{Signal, getpid, kill_process};

/// More bytes than a frame has, so that each is written at once: standard output's own buffer is
/// 1 KiB, and a reader between two writes sees a frame half drawn.
const FRAME_BYTES: usize = 64 << 10;

/// Whether the view has the terminal.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Why there is no live view here.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// Output or input is something else.
    #[error(
        "top needs a terminal for its input and output, and {what} is none; use `hangwatch status` \
         (or `hangwatch status --json`), or `watch hangwatch status`"
    )]
    NotATerminal {
        /// Which of them.
        what: &'static str,
    },
    /// It cannot place text.
    #[error(
        "top needs a terminal that can place text, and TERM={term:?} cannot; use `hangwatch status`"
    )]
    Dumb {
        /// What it says it is.
        term: String,
    },
    /// It refused.
    #[error("the terminal cannot be used: {0}; use `hangwatch status`")]
    Io(#[from] io::Error),
}

/// The terminal, while the view has it.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn take() -> Result<Screen, TerminalError> {
        if !io::stdout().is_terminal() {
            return Err(TerminalError::NotATerminal { what: "standard output" });
        }
        if !io::stdin().is_terminal() {
            return Err(TerminalError::NotATerminal { what: "standard input" });
        }
        let term = std::env::var("TERM").unwrap_or_default();
        if term.is_empty() || term == "dumb" {
            return Err(TerminalError::Dumb { term });
        }
        give_back_on_panic();
        enter()?;
        let out = BufWriter::with_capacity(FRAME_BYTES, io::stdout());
        let terminal = Terminal::new(CrosstermBackend::new(out)).inspect_err(|_| leave())?;
        Ok(Screen { terminal })
    }

    /// Draws a frame, in the terminal's present size. A terminal that can, shows it as a whole.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        execute!(io::stdout(), BeginSynchronizedUpdate)?;
        self.terminal.draw(draw)?;
        execute!(io::stdout(), EndSynchronizedUpdate)
    }

    /// Forgets what is on the screen: the next frame is drawn from scratch.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }

    /// Gives the terminal back and stops this process, as ctrl-Z does; once continued, takes it
    /// again.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        leave();
        // Not TSTP: that is caught here, or it could not be told from any other.
        kill_process(getpid(), Signal::STOP)?;
        self.resume()
    }

    /// Takes the terminal again after a stop: whoever had it meanwhile has set it as it likes.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        leave();
        enter()?;
        self.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

fn enter() -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::Release);
    execute!(io::stdout(), EnterAlternateScreen, Hide).inspect_err(|_| leave())
}

fn leave() {
    if TAKEN.swap(false, Ordering::AcqRel) {
        // A terminal that has gone needs no giving back.
        let _ = execute!(io::stdout(), EndSynchronizedUpdate, LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

fn give_back_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            leave();
            previous(info);
        }));
    });
}

#[cfg(test)]
mod tests;
