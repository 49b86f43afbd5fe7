//! The frames of an HTTP/2 connection as they come in, by their own heads, before anybody has understood them.
//!
//! For counting alone: it reads no field and changes nothing; what a frame means is for h2 to say.

/// Of a frame's own head.
const LENGTH: usize = 9;

/// What the head of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// The stream it belongs to; 0: the connection.
    pub stream: u32,
}

impl Frame {
    /// Whether it resets its stream.
    #[inline]
    pub fn resets(&self) -> bool {
        self.kind == 3
    }
}

/// The place in what one side sends.
#[derive(Debug, Default)]
pub struct Frames {
    /// Of the frame's head that is coming.
    head: [u8; LENGTH],
    have: usize,
    /// Bytes that still come before the next frame's head.
    skip: usize,
}

impl Frames {
    /// Of a side that says so many bytes first that are no frame.
    pub fn behind(preface: usize) -> Frames {
        Frames { skip: preface, ..Frames::default() }
    }

    /// Takes what has come; calls `each` for every frame whose head is whole with it.
    #[inline]
    pub fn walk(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = (LENGTH - self.have).min(bytes.len());
            if wanted == 0 {
                return;
            }
            self.head[self.have..self.have + wanted].copy_from_slice(&bytes[..wanted]);
            self.have += wanted;
            bytes = &bytes[wanted..];
            if self.have == LENGTH {
                each(self.frame());
            }
        }
    }

    fn frame(&mut self) -> Frame {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        self.have = 0;
        self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
        // The highest bit is reserved.
        Frame { kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_they_come() {
        let mut bytes = b"PRI".to_vec();
        for (kind, flags, stream, length) in [(4, 0, 0, 6), (1, 5, 1, 300), (0, 1, u32::MAX, 0), (6, 0, 0, 8)]
        {
            bytes.extend([0, (length >> 8) as u8, length as u8, kind, flags]);
            bytes.extend(stream.to_be_bytes());
            bytes.resize(bytes.len() + length, 0xff);
        }
        let frame = |kind, flags, stream| Frame { kind, flags, stream };
        let wanted = [frame(4, 0, 0), frame(1, 5, 1), frame(0, 1, u32::MAX >> 1), frame(6, 0, 0)];
        for piece in 1..=bytes.len() {
            let (mut frames, mut found) = (Frames::behind(3), Vec::new());
            bytes.chunks(piece).for_each(|bytes| frames.walk(bytes, |frame| found.push(frame)));
            assert_eq!(found, wanted, "in pieces of {piece}");
        }
    }
}
