//! What whoever looks wants to see: the view, the order, the filter, the line that is picked. Keys change it, and so does
//! every new picture; nothing here draws.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::columns::Column;
use super::picture::{Picture, PodRow};
use crate::command::findings::whom;

/// Longest filter: as long as a name of Kubernetes.
const FILTER_MAX: usize = 253;

/// See the module's text. Times are since the start of the program.
pub(super) struct App {
    pub(super) picture: Option<Picture>,
    /// When the picture was made.
    pub(super) made: Duration,
    /// Why there is no newer one; `None` while all is well.
    pub(super) trouble: Option<String>,
    pub(super) now: Duration,
    /// Between two pictures.
    pub(super) interval: Duration,
    pub(super) view: View,
    pub(super) sort: Column,
    pub(super) is_reversed: bool,
    pub(super) filter: String,
    /// Keys go into the filter.
    pub(super) is_typing: bool,
    pub(super) overlay: Overlay,
    /// Columns of the screen.
    pub(super) width: u16,
    /// The picked line, counted from the first that passes the filter.
    pub(super) cursor: usize,
    /// The first line on the screen.
    pub(super) top: usize,
    /// Lines that the list has on the screen.
    pub(super) page: usize,
    /// What stands in the picked line, once somebody has picked: it is followed when the order changes.
    picked: Option<String>,
}

/// What the list shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Pods,
    Findings,
    Capacity,
}

/// What lies over the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overlay {
    None,
    /// All that is known of the picked line.
    Details,
    Help,
}

/// What happened.
pub(super) enum Event {
    Key(KeyEvent),
    /// The terminal has so many columns now.
    Resized(u16),
    /// The agent's answer, or why there is none.
    Asked(Result<Box<Picture>, String>),
    /// A signal, or the end of the terminal.
    Stop,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Draw,
    Quit,
}

impl View {
    pub(super) const ALL: [Self; 3] = [Self::Pods, Self::Findings, Self::Capacity];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Findings => "findings",
            Self::Capacity => "capacity",
        }
    }

    fn after(self, steps: usize) -> Self {
        let place = Self::ALL.iter().position(|view| *view == self).unwrap_or(0);
        Self::ALL.into_iter().cycle().nth(place + steps).unwrap_or(self)
    }
}

impl App {
    /// Nothing was asked yet.
    pub(super) fn new(width: u16, interval: Duration) -> Self {
        Self {
            picture: None,
            made: Duration::ZERO,
            trouble: None,
            now: Duration::ZERO,
            interval,
            view: View::Pods,
            sort: Column::Received,
            is_reversed: false,
            filter: String::new(),
            is_typing: false,
            overlay: Overlay::None,
            width,
            cursor: 0,
            top: 0,
            page: 1,
            picked: None,
        }
    }

    /// Takes one event at its time.
    pub(super) fn handle(&mut self, event: Event, now: Duration) -> Next {
        self.now = now;
        match event {
            Event::Stop => return Next::Quit,
            Event::Resized(width) => self.width = width,
            Event::Asked(Ok(picture)) => {
                (self.picture, self.made, self.trouble) = (Some(*picture), now, None);
                self.follow();
            }
            // The last picture stays; its age is on the screen.
            Event::Asked(Err(why)) => self.trouble = Some(why),
            Event::Key(key) if key.kind == KeyEventKind::Release => {}
            Event::Key(key) if key.modifiers.contains(KeyModifiers::CONTROL) => {
                if matches!(key.code, KeyCode::Char('c' | 'd')) {
                    return Next::Quit;
                }
            }
            Event::Key(key) if self.is_typing => self.typed(key.code),
            Event::Key(key) => return self.pressed(key.code),
        }
        Next::Draw
    }

    /// How old the picture is, when that is older than it should be.
    pub(super) fn stale(&self) -> Option<Duration> {
        let age = self.now.saturating_sub(self.made);
        // An answer takes a moment: two misses in a row are no accident.
        let is_late = age > self.interval * 2 + Duration::from_secs(2);
        (self.picture.is_some() && (self.trouble.is_some() || is_late)).then_some(age)
    }

    /// The pods that pass the filter, in order.
    pub(super) fn pods(&self) -> Vec<&PodRow> {
        let Some(picture) = &self.picture else { return Vec::new() };
        let passes = |row: &&PodRow| self.passes(&row.name) || self.passes(&row.traffic.workload);
        let mut rows: Vec<_> = picture.pods.iter().filter(passes).collect();
        self.sort.order(&mut rows, self.is_reversed);
        rows
    }

    /// Places of the findings that pass the filter.
    pub(super) fn findings(&self) -> Vec<usize> {
        let rows = self.picture.iter().flat_map(|picture| picture.findings.iter().enumerate());
        let passes = |row: &agent_core::output::FindingRow| {
            self.passes(row.code.name())
                || self.passes(&whom(&row.subject))
                || self.passes(row.severity.name())
                || row.pods.iter().any(|pod| self.passes(pod))
        };
        rows.filter(|(_, row)| passes(row)).map(|(place, _)| place).collect()
    }

    /// Places of the ceilings that pass the filter.
    pub(super) fn resources(&self) -> Vec<usize> {
        let row = self.picture.as_ref().and_then(|picture| picture.capacity.as_ref());
        let resources = row.map_or(&[][..], |row| &row.resources).iter().enumerate();
        let passes =
            |row: &agent_core::output::ResourceRow| self.passes(row.resource.name()) || self.passes(&row.scope);
        resources.filter(|(_, row)| passes(row)).map(|(place, _)| place).collect()
    }

    /// Brings the picked line onto a screen with room for so many.
    pub(super) fn show(&mut self, lines: usize) {
        self.page = lines.max(1);
        self.cursor = self.cursor.min(self.len().saturating_sub(1));
        let last_top = self.len().saturating_sub(self.page);
        let least = (self.cursor + 1).saturating_sub(self.page);
        self.top = self.top.clamp(least, self.cursor.max(least)).min(last_top.max(least));
    }

    fn pressed(&mut self, key: KeyCode) -> Next {
        match (key, self.overlay) {
            (KeyCode::Char('q'), _) => return Next::Quit,
            (KeyCode::Esc | KeyCode::Enter, Overlay::Details | Overlay::Help)
            | (KeyCode::Char('?' | 'h'), Overlay::Help) => self.overlay = Overlay::None,
            (KeyCode::Char('?' | 'h'), _) => self.overlay = Overlay::Help,
            (KeyCode::Enter, Overlay::None) if self.len() > 0 => {
                self.pick(self.cursor);
                self.overlay = Overlay::Details;
            }
            (KeyCode::Esc, Overlay::None) => self.set_filter(String::new()),
            (KeyCode::Char('/'), _) => (self.is_typing, self.overlay) = (true, Overlay::None),
            (KeyCode::Tab | KeyCode::Right, _) => self.look_at(self.view.after(1)),
            (KeyCode::BackTab | KeyCode::Left, _) => self.look_at(self.view.after(View::ALL.len() - 1)),
            (KeyCode::Char('1'), _) => self.look_at(View::Pods),
            (KeyCode::Char('2'), _) => self.look_at(View::Findings),
            (KeyCode::Char('3'), _) => self.look_at(View::Capacity),
            (KeyCode::Char('s'), _) => self.sort_by(self.sort.next(self.width)),
            (KeyCode::Char('r'), _) if self.view == View::Pods => {
                self.is_reversed = !self.is_reversed;
                self.follow();
            }
            (KeyCode::Up | KeyCode::Char('k'), _) => self.pick(self.cursor.saturating_sub(1)),
            (KeyCode::Down | KeyCode::Char('j'), _) => self.pick(self.cursor + 1),
            (KeyCode::PageUp, _) => self.pick(self.cursor.saturating_sub(self.page)),
            (KeyCode::PageDown, _) => self.pick(self.cursor + self.page),
            // Back to the first line, whatever will stand there.
            (KeyCode::Home | KeyCode::Char('g'), _) => (self.cursor, self.picked) = (0, None),
            (KeyCode::End | KeyCode::Char('G'), _) => self.pick(usize::MAX),
            _ => {}
        }
        Next::Draw
    }

    fn typed(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.set_filter(String::new());
            }
            KeyCode::Backspace => {
                let mut filter = std::mem::take(&mut self.filter);
                filter.pop();
                self.set_filter(filter);
            }
            KeyCode::Char(letter) if !letter.is_control() && self.filter.len() < FILTER_MAX => {
                let filter = format!("{}{letter}", self.filter);
                self.set_filter(filter);
            }
            _ => {}
        }
    }

    fn set_filter(&mut self, filter: String) {
        self.filter = filter;
        self.follow();
    }

    fn sort_by(&mut self, column: Column) {
        if self.view == View::Pods {
            (self.sort, self.is_reversed) = (column, false);
            self.follow();
        }
    }

    fn look_at(&mut self, view: View) {
        if self.view != view {
            (self.view, self.cursor, self.top, self.picked) = (view, 0, 0, None);
        }
        self.overlay = Overlay::None;
    }

    fn pick(&mut self, place: usize) {
        self.cursor = place.min(self.len().saturating_sub(1));
        self.picked = self.ids().into_iter().nth(self.cursor);
    }

    /// What was picked stays picked where it stands now; what is gone leaves its place to another.
    fn follow(&mut self) {
        let ids = self.ids();
        let place = self.picked.as_ref().and_then(|picked| ids.iter().position(|id| id == picked));
        self.cursor = place.unwrap_or(self.cursor).min(ids.len().saturating_sub(1));
        if place.is_none() && self.picked.is_some() && self.overlay == Overlay::Details {
            // Details of another than was asked for would be taken for those of the first.
            self.overlay = Overlay::None;
        }
        if self.picked.is_some() {
            self.picked = ids.into_iter().nth(self.cursor);
        }
    }

    fn len(&self) -> usize {
        match self.view {
            View::Pods => self.pods().len(),
            View::Findings => self.findings().len(),
            View::Capacity => self.resources().len(),
        }
    }

    fn ids(&self) -> Vec<String> {
        let Some(picture) = &self.picture else { return Vec::new() };
        match self.view {
            View::Pods => self.pods().into_iter().map(PodRow::id).collect(),
            View::Findings => {
                let rows = self.findings().into_iter().filter_map(|place| picture.findings.get(place));
                rows.map(|row| row.id.clone()).collect()
            }
            View::Capacity => {
                let rows = picture.capacity.as_ref().map_or(&[][..], |row| &row.resources);
                let rows = self.resources().into_iter().filter_map(|place| rows.get(place));
                rows.map(|row| format!("{} {}", row.resource.name(), row.scope)).collect()
            }
        }
    }

    fn passes(&self, text: &str) -> bool {
        self.filter.is_empty() || text.to_lowercase().contains(&self.filter.to_lowercase())
    }
}
