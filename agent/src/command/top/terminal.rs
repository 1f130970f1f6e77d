//! The terminal: taken, drawn on, and given back as it was, whatever ends the program.
//!
//! Three threads wait, for keys, for signals and for the agent, and put what they get into one queue; the loop draws.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event as Input};
use tokio::signal::unix::{SignalKind, signal};

use super::page;
use super::picture::Picture;
use super::state::{App, Event, Next};
use crate::lines::chain;

/// Events that wait: keys that are held down come faster than a slow line takes pictures.
const QUEUE: usize = 64;
/// Ages on the screen go on.
const REDRAW: Duration = Duration::from_secs(1);
/// Until the terminal said how wide it is.
const WIDTH_DEFAULT: u16 = 80;

/// The terminal's width, where standard output is one.
pub(super) fn columns() -> Option<u16> {
    ratatui::crossterm::terminal::size().ok().map(|(columns, _)| columns).filter(|columns| *columns > 0)
}

/// Shows a running agent until somebody has seen enough.
pub(super) fn run(socket: &Path, interval: Duration) -> anyhow::Result<()> {
    let (send, events) = mpsc::sync_channel(QUEUE);
    // Before the terminal is taken: from then on every end must give it back.
    watch_signals(send.clone())?;
    let app = App::new(columns().unwrap_or(WIDTH_DEFAULT), interval);
    let screen = Screen::take().context("could not take the terminal; `sekisho top --once` needs none")?;
    watch_keys(send.clone());
    ask(socket.to_owned(), interval, send);
    show(screen, app, &events)
}

fn show(mut screen: Screen, mut app: App, events: &Receiver<Event>) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        screen.draw(&mut app).context("could not draw on the terminal")?;
        let mut next = match events.recv_timeout(REDRAW) {
            Ok(event) => app.handle(event, start.elapsed()),
            Err(RecvTimeoutError::Timeout) => {
                app.now = start.elapsed();
                Next::Draw
            }
            Err(RecvTimeoutError::Disconnected) => Next::Quit,
        };
        // All that waits changes one picture.
        while next == Next::Draw
            && let Ok(event) = events.try_recv()
        {
            next = app.handle(event, start.elapsed());
        }
        if next == Next::Quit {
            return screen.give_back().context("could not give the terminal back as it was; `reset` does");
        }
    }
}

/// The terminal, given back when this is dropped; a panic gives it back before it is told.
struct Screen {
    terminal: DefaultTerminal,
    is_taken: bool,
}

impl Screen {
    fn take() -> std::io::Result<Self> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self { terminal, is_taken: true }),
            Err(error) => {
                // It may have been taken by half.
                let _ = ratatui::try_restore();
                Err(error)
            }
        }
    }

    fn draw(&mut self, app: &mut App) -> std::io::Result<()> {
        self.terminal.draw(|frame| {
            let area = frame.area();
            page::draw(app, area, frame.buffer_mut());
        })?;
        Ok(())
    }

    fn give_back(mut self) -> std::io::Result<()> {
        self.is_taken = false;
        self.terminal.show_cursor().and(ratatui::try_restore())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.is_taken {
            // On the way out of an error, which is told; this one would hide it.
            let _ = self.terminal.show_cursor().and(ratatui::try_restore());
        }
    }
}

fn watch_keys(send: SyncSender<Event>) {
    std::thread::spawn(move || {
        loop {
            let event = match event::read() {
                Ok(Input::Key(key)) => Event::Key(key),
                Ok(Input::Resize(columns, _)) => Event::Resized(columns),
                Ok(_) => continue,
                // The terminal is gone.
                Err(_) => Event::Stop,
            };
            let is_end = matches!(event, Event::Stop);
            if send.send(event).is_err() || is_end {
                return;
            }
        }
    });
}

/// Signals that would end the program without a word end it in order.
fn watch_signals(send: SyncSender<Event>) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("could not watch signals")?;
    let signals = {
        let _inside = runtime.enter();
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()];
        kinds.into_iter().map(signal).collect::<Result<Vec<_>, _>>().context("could not watch signals")?
    };
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let mut signals = signals;
            let waits = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
            futures_util::future::select_all(waits).await;
        });
        // Nobody listens: the program ends anyway.
        let _ = send.send(Event::Stop);
    });
    Ok(())
}

fn ask(socket: std::path::PathBuf, interval: Duration, send: SyncSender<Event>) {
    std::thread::spawn(move || {
        loop {
            let picture = Picture::ask(&socket).map(Box::new).map_err(|error| chain(&error));
            if send.send(Event::Asked(picture)).is_err() {
                return;
            }
            std::thread::sleep(interval);
        }
    });
}
