//! Heads of answers on an upstream's HTTP/2 connection, counted from the frames as they come: final ones are one for
//! each stream, informational ones may be many, and are not to be without end.

use crate::http::{Frame, Frames};

const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
/// Heads for each stream, on average; one of them is the answer's own.
const MOST: u32 = 16;
/// And so many more, so that an average can be.
const MORE: u32 = 100;

/// What has come so far.
#[derive(Debug, Default)]
pub(super) struct Heads {
    frames: Frames,
    /// Heads that do not end their stream.
    open: u32,
    /// The highest stream.
    last: u32,
}

impl Heads {
    /// Takes what has come; false: there are too many heads.
    pub(super) fn came(&mut self, bytes: &[u8]) -> bool {
        let Heads { frames, open, last } = self;
        frames.walk(bytes, |Frame { kind, flags, stream }| {
            if kind == HEADERS {
                // Our streams have odd numbers.
                *last = stream.max(*last);
                *open = open.saturating_add(u32::from(flags & END_STREAM == 0));
            }
        });
        *open <= MOST.saturating_mul(*last / 2 + 1).saturating_add(MORE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, length: u8) -> Vec<u8> {
        let head = [&[0, 0, length, kind, flags][..], &stream.to_be_bytes()].concat();
        [head, vec![1; length.into()]].concat()
    }

    /// Whether all of it passes, in pieces of so many bytes.
    fn passes(all: &[u8], piece: usize) -> bool {
        let mut heads = Heads::default();
        all.chunks(piece).all(|bytes| heads.came(bytes))
    }

    fn check(all: &[u8], wanted: bool) {
        for piece in [1, 2, 7, 9, 10, 4096] {
            assert_eq!(passes(all, piece), wanted, "in pieces of {piece}");
        }
    }

    #[test]
    fn heads_beyond_what_answers_have_are_too_many_however_they_come() {
        let interim = frame(HEADERS, 4, 1, 3);
        check(&interim.repeat(100), true);
        check(&interim.repeat(117), false);
        check(&interim.repeat(10_000), false);
        // Answers, each after an early hint; data that looks like heads; heads that end their stream.
        let answers: Vec<u8> = (0..2000u32)
            .flat_map(|n| {
                [
                    frame(HEADERS, 4, 2 * n + 1, 3),
                    frame(HEADERS, 4, 2 * n + 1, 9),
                    frame(0, 1, 2 * n + 1, 200),
                ]
            })
            .flatten()
            .collect();
        check(&answers, true);
        check(&frame(HEADERS, END_STREAM, 1, 3).repeat(1000), true);
        check(&[frame(HEADERS, 4, 1, 3), frame(0, 0, 1, 0).repeat(10_000)].concat(), true);
    }
}
