//! A bounded queue that loses the newest and remembers how many, in place: whoever reads it learns where lines are
//! missing. Readers that write to the outside stand behind one of these, so that a slow one never holds up the Engine.

use std::collections::VecDeque;

use agent_core::output::{Output, ProcessView, Who};

/// The queue; waiting is up to who wraps it.
pub(crate) struct Lossy<T> {
    entries: VecDeque<Entry<T>>,
    weight: usize,
    entries_max: usize,
    weight_max: usize,
}

/// What a reader takes out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry<T> {
    /// An item and its weight in bytes.
    Item(T, usize),
    /// So many items are missing here.
    Dropped(u64),
}

// === impl Lossy ===

impl<T> Lossy<T> {
    /// An empty queue for so many items and so many bytes of them, whichever is reached first.
    pub(crate) fn new(entries_max: usize, weight_max: usize) -> Self {
        Self { entries: VecDeque::new(), weight: 0, entries_max, weight_max }
    }

    /// Appends an item, or counts it as dropped; whether there was room.
    pub(crate) fn push(&mut self, item: T, weight: usize) -> bool {
        let full = self.entries.len() >= self.entries_max || self.weight.saturating_add(weight) > self.weight_max;
        if !full {
            self.weight += weight;
            self.entries.push_back(Entry::Item(item, weight));
        } else if let Some(Entry::Dropped(count)) = self.entries.back_mut() {
            *count += 1;
        } else {
            // One entry more than the bound at most: nothing but this is ever put into a full queue.
            self.entries.push_back(Entry::Dropped(1));
        }
        !full
    }

    /// Appends something weightless that nobody misses, if there is room.
    pub(crate) fn note(&mut self, item: T) {
        if self.entries.len() < self.entries_max {
            self.entries.push_back(Entry::Item(item, 0));
        }
    }

    /// Takes the oldest.
    pub(crate) fn pop(&mut self) -> Option<Entry<T>> {
        let entry = self.entries.pop_front()?;
        if let Entry::Item(_, weight) = &entry {
            self.weight -= weight;
        }
        if self.entries.is_empty() && self.entries.capacity() > KEPT_ENTRIES {
            // A burst must not stay resident.
            self.entries = VecDeque::new();
        }
        Some(entry)
    }

    /// How many wait to be taken.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nothing to take.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Room that an emptied queue keeps: 256 entries of 32 bytes.
const KEPT_ENTRIES: usize = 256;

/// Bytes of an object's facts: a pod with labels and containers, the largest of them.
const OBJECT_BYTES: usize = 3_072;

/// About how many bytes an output holds, what it shares with others included.
pub(crate) fn weigh(output: &Output) -> usize {
    let inner = match output {
        Output::Flow(row) => {
            size_of_val(&**row)
                + who(&row.who)
                + text(row.local.ip.as_ref())
                + text(row.peer.ip.as_ref())
                + text(row.peer.name.as_ref())
                + text(row.peer.namespace.as_ref())
                + text(row.peer.pod.as_ref())
        }
        Output::Metadata(row) => {
            size_of_val(&**row)
                + who(&row.who)
                + text(row.local.ip.as_ref())
                + text(row.role.as_ref())
                + text(row.access_key_id.as_ref())
                + text(row.forwarded_for.as_ref())
        }
        Output::Process(row) => size_of_val(&**row) + who(&row.who),
        // A map entry is a key, a count and its share of a tree node: below 64 bytes.
        Output::Gap(row) => row.records_lost.len() * 64,
        Output::Finding(row) => row.text.len() + row.advice.len() + row.evidence.len() * 256 + row.pods.len() * 64,
        Output::Capacity(row) => row.resources.len() * 160,
        // The facts are those that the Engine holds; the row alone keeps them once they are replaced.
        Output::Object(row) => size_of_val(&**row) + OBJECT_BYTES,
    };
    size_of::<Output>() + inner
}

fn who(who: &Who) -> usize {
    let identity = &who.identity;
    let names = [&identity.namespace, &identity.pod, &identity.uid, &identity.container, &identity.workload];
    size_of_val(&**identity)
        + names.iter().map(|name| name.len()).sum::<usize>()
        + who.process.as_deref().map_or(0, process)
}

fn process(view: &ProcessView) -> usize {
    let args = view.args.iter().map(|arg| size_of::<String>() + arg.len()).sum::<usize>();
    let ancestors = view
        .ancestors
        .iter()
        .map(|ancestor| size_of_val(ancestor) + ancestor.comm.len() + text(ancestor.exe.as_ref()))
        .sum::<usize>();
    size_of_val(view) + text(view.exe.as_ref()) + text(view.exe_resolved.as_ref()) + view.comm.len() + args + ancestors
}

fn text(text: Option<&String>) -> usize {
    text.map_or(0, String::len)
}

#[cfg(test)]
mod tests {
    use super::{Entry, Lossy};

    #[test]
    fn what_does_not_fit_is_counted_where_it_is_missing() {
        let mut queue = Lossy::new(2, 100);
        for item in 0..5 {
            queue.push(item, 1);
        }
        assert_eq!(queue.pop(), Some(Entry::Item(0, 1)));
        assert_eq!(queue.pop(), Some(Entry::Item(1, 1)));
        queue.push(5, 1);
        assert_eq!(queue.pop(), Some(Entry::Dropped(3)));
        assert_eq!(queue.pop(), Some(Entry::Item(5, 1)));
        assert_eq!(queue.pop(), None);
        assert!(queue.is_empty());
    }

    #[test]
    fn weight_bounds_too_and_is_given_back() {
        let mut queue = Lossy::new(100, 10);
        queue.push('a', 6);
        queue.push('b', 6);
        assert_eq!(queue.pop(), Some(Entry::Item('a', 6)));
        assert_eq!(queue.pop(), Some(Entry::Dropped(1)));
        queue.push('c', 10);
        queue.push('d', 11);
        assert_eq!(queue.pop(), Some(Entry::Item('c', 10)));
        assert_eq!(queue.pop(), Some(Entry::Dropped(1)));
        assert_eq!(queue.weight, 0);
    }

    #[test]
    fn notes_are_not_counted() {
        let mut queue = Lossy::new(1, 10);
        queue.note('a');
        queue.note('b');
        queue.push('c', 1);
        queue.note('d');
        assert_eq!(queue.pop(), Some(Entry::Item('a', 0)));
        assert_eq!(queue.pop(), Some(Entry::Dropped(1)));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn a_burst_does_not_stay_resident() {
        let mut queue = Lossy::new(100_000, usize::MAX);
        for item in 0..50_000 {
            queue.push(item, 0);
        }
        while queue.pop().is_some() {}
        assert!(queue.entries.capacity() <= super::KEPT_ENTRIES);
    }
}
