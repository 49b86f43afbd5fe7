//! A revision that nobody has asked for, folded up: what is its own as one row of bytes, all else shared with those
//! that say the same.
//!
//! Most functions idle, and what is written of one takes more room unfolded than everything else that is kept of it.

use proxy_config::model::{Command, Revision};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

/// A revision looks like another of so many kinds, or is a kind of its own.
const KINDS: usize = 64;
/// A length of this many bytes and more takes five bytes, a smaller one takes one.
const LONG: usize = 255;

/// A revision, but for its key.
#[derive(Debug)]
pub(super) struct Asleep {
    own: Box<[u8]>,
    kind: Arc<Revision>,
}

/// What revisions have in common.
#[derive(Debug, Default)]
pub(super) struct Kinds(VecDeque<Weak<Revision>>);

impl Asleep {
    pub fn fold(revision: &Revision, kinds: &mut Kinds) -> Asleep {
        let mut own = Row(Vec::with_capacity(256));
        own.text(&revision.service);
        own.text(&revision.name);
        own.texts(revision.labels.iter().flat_map(|(key, value)| [key, value]));
        own.texts(revision.env.iter().flat_map(|(key, value)| [key, value]));
        let (mut words, mut stand_in) = (Vec::new(), false);
        let mut refused = None;
        match &revision.command {
            Command::Run(all) => words.clone_from(all),
            Command::StandIn => stand_in = true,
            Command::Refused { reason, help } => refused = Some([reason, help]),
        }
        own.length(usize::from(stand_in));
        own.texts(words.iter());
        own.texts(refused.into_iter().flatten());
        Asleep { own: own.0.into(), kind: kinds.of(revision) }
    }

    pub fn unfold(&self, key: &str) -> Revision {
        let mut own = Reader(&self.own);
        let (service, name) = (own.text(), own.text());
        let labels = pairs(own.texts()).collect();
        let env = pairs(own.texts()).collect();
        let stand_in = own.length() > 0;
        let words = own.texts();
        let mut refused = own.texts().into_iter();
        let command = match (refused.next(), refused.next()) {
            (Some(reason), Some(help)) => Command::Refused { reason, help },
            _ if stand_in => Command::StandIn,
            _ => Command::Run(words),
        };
        Revision { key: key.to_owned(), service, name, labels, env, command, ..(*self.kind).clone() }
    }
}

impl Kinds {
    fn of(&mut self, revision: &Revision) -> Arc<Revision> {
        let kind = Revision {
            key: String::new(),
            service: String::new(),
            name: String::new(),
            labels: Default::default(),
            env: Vec::new(),
            command: Command::StandIn,
            ..revision.clone()
        };
        if let Some(known) = self.0.iter().filter_map(Weak::upgrade).find(|known| **known == kind) {
            return known;
        }
        self.0.retain(|known| known.strong_count() > 0);
        self.0.truncate(KINDS - 1);
        let kind = Arc::new(kind);
        self.0.push_front(Arc::downgrade(&kind));
        kind
    }
}

/// Numbers and texts behind one another.
struct Row(Vec<u8>);

impl Row {
    fn length(&mut self, length: usize) {
        match u8::try_from(length) {
            Ok(short) if length < LONG => self.0.push(short),
            _ => {
                self.0.push(u8::MAX);
                // No text is as long: files are bounded.
                self.0.extend(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
            }
        }
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend(text.as_bytes());
    }

    fn texts<'a>(&mut self, texts: impl Iterator<Item = &'a String> + Clone) {
        self.length(texts.clone().count());
        texts.for_each(|text| self.text(text));
    }
}

/// Reads what a row has, in the same order.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes(&mut self, count: usize) -> &[u8] {
        let (first, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        first
    }

    fn length(&mut self) -> usize {
        match self.bytes(1) {
            [short] if usize::from(*short) < LONG => usize::from(*short),
            _ => self.bytes(4).try_into().map_or(0, |long| u32::from_le_bytes(long) as usize),
        }
    }

    fn text(&mut self) -> String {
        let length = self.length();
        String::from_utf8_lossy(self.bytes(length)).into_owned()
    }

    fn texts(&mut self) -> Vec<String> {
        (0..self.length()).map(|_| self.text()).collect()
    }
}

fn pairs(texts: Vec<String>) -> impl Iterator<Item = (String, String)> {
    let mut texts = texts.into_iter();
    std::iter::from_fn(move || Some((texts.next()?, texts.next()?)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::revision;
    use super::*;

    #[test]
    fn a_revision_is_the_same_again_whatever_is_written_of_it() {
        let mut kinds = Kinds::default();
        let plain = revision("plain", 1, 0);
        let long = "x".repeat(70_000);
        let rows = [
            Revision { command: Command::Run(Vec::new()), ..plain.clone() },
            Revision {
                command: Command::Run(vec![long.clone(), String::new(), "é\0".into()]),
                ..plain.clone()
            },
            Revision { command: Command::StandIn, ..plain.clone() },
            Revision {
                command: Command::Refused { reason: "why".into(), help: long.clone() },
                ..plain.clone()
            },
            Revision { labels: (0..300).map(|n| (n.to_string(), "v".repeat(n))).collect(), ..plain.clone() },
            Revision { env: vec![("A".into(), "1".into()), ("A".into(), long)], ..plain.clone() },
            Revision { concurrency: 7, directory: "/elsewhere".into(), ..plain.clone() },
            plain,
        ];
        for row in &rows {
            assert!(Asleep::fold(row, &mut kinds).unfold(&row.key) == *row, "{row:?}");
        }
    }

    #[test]
    fn revisions_that_say_the_same_share_it_for_as_long_as_one_of_them_sleeps() {
        let mut kinds = Kinds::default();
        let mut fold = |name, concurrency| Asleep::fold(&revision(name, concurrency, 0), &mut kinds);
        let all = [fold("a", 1), fold("b", 1), fold("c", 2)];
        assert!(Arc::ptr_eq(&all[0].kind, &all[1].kind) && !Arc::ptr_eq(&all[0].kind, &all[2].kind));
        drop(all);
        let other = Asleep::fold(&revision("d", 3, 0), &mut kinds);
        assert_eq!((kinds.0.len(), Arc::strong_count(&other.kind)), (1, 1));
    }
}
