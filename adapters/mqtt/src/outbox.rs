//! What waits to be written: segments of buffers that many connections share.
//!
//! During one turn of a worker everything that is to be sent is written once, into one of the worker's
//! buffers, and each connection notes which segments are for it; neighbouring segments grow together.
//! At the end of the turn each connection writes its segments with as few system calls as possible.
//! What a socket does not take then is kept: copied if it is little, else as a share of the whole buffer.
//!
//! A packet that promises something waits until that is on disk, and whatever comes after it waits behind it:
//! it is held with the ticket of the commit that has to be known before.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;

/// Which buffer of the turn a segment lies in.
pub(crate) type Source = u32;

/// Messages, encoded once for all receivers of a protocol version.
pub(crate) const SHARED: Source = 0;
/// Messages with a packet identifier of their own.
pub(crate) const PERSONAL: Source = 1;
/// Acknowledgements and all other packets.
pub(crate) const REPLIES: Source = 2;
const OWN: usize = 3;

/// Buffers together hold about this much before they are written out, which keeps them in the cache.
pub(crate) const TURN_BYTES: usize = 192 * 1024;
/// Segments offered to one system call.
const VECTORS: usize = 64;
/// Leftovers up to this size are copied, rather than keep the buffer of the whole turn alive.
const COPIED_BYTES: usize = 4 * 1024;
/// A leftover keeps a shared buffer alive only if it uses at least this part of it.
const SHARE: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) source: Source,
    pub(crate) start: u32,
    pub(crate) len: u32,
}

impl Segment {
    pub(crate) const EMPTY: Self = Self {
        source: SHARED,
        start: 0,
        len: 0,
    };
}

/// The buffers of one turn: three of the worker's own, then those that other workers handed over.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    own: [Vec<u8>; OWN],
    /// Buffers that became shared in the middle of the turn take the place of the own one.
    frozen: [Option<Arc<Vec<u8>>>; OWN],
    foreign: Vec<Arc<Vec<u8>>>,
    /// Segment lists of connections that have nothing to send, to be used again.
    lists: Vec<Vec<Segment>>,
}

impl Turn {
    /// Appends what `write` writes to one of the worker's own buffers.
    pub(crate) fn write(&mut self, source: Source, write: impl FnOnce(&mut Vec<u8>)) -> Segment {
        let buffer = &mut self.own[source as usize];
        let start = buffer.len();
        write(buffer);
        Segment {
            source,
            start: start as u32,
            len: (buffer.len() - start) as u32,
        }
    }

    /// Appends to `PERSONAL` what `write` makes of `segment`.
    pub(crate) fn rewrite(
        &mut self,
        segment: Segment,
        write: impl FnOnce(&[u8], &mut Vec<u8>),
    ) -> Segment {
        let mut buffer = std::mem::take(&mut self.own[PERSONAL as usize]);
        let start = buffer.len();
        write(self.bytes(segment), &mut buffer);
        let len = (buffer.len() - start) as u32;
        self.own[PERSONAL as usize] = buffer;
        Segment {
            source: PERSONAL,
            start: start as u32,
            len,
        }
    }

    /// Adopts a buffer of another worker for this turn.
    pub(crate) fn adopt(&mut self, buffer: Arc<Vec<u8>>) -> Source {
        self.foreign.push(buffer);
        (OWN + self.foreign.len() - 1) as Source
    }

    pub(crate) fn bytes(&self, segment: Segment) -> &[u8] {
        let range = segment.start as usize..(segment.start + segment.len) as usize;
        let source = segment.source as usize;
        if source >= OWN {
            return &self.foreign[source - OWN][range];
        }
        match &self.frozen[source] {
            Some(frozen) => &frozen[range],
            None => &self.own[source][range],
        }
    }

    /// Whether it is time to write out, before the turn ends.
    pub(crate) fn is_full(&self) -> bool {
        self.own.iter().map(Vec::len).sum::<usize>() >= TURN_BYTES
    }

    /// Makes a buffer shareable. Nothing may be written to it until [`Turn::clear`].
    pub(crate) fn freeze(&mut self, source: Source) -> Arc<Vec<u8>> {
        let source = source as usize;
        if source >= OWN {
            return Arc::clone(&self.foreign[source - OWN]);
        }
        let own = &mut self.own[source];
        Arc::clone(self.frozen[source].get_or_insert_with(|| Arc::new(std::mem::take(own))))
    }

    /// Ends the turn: no segment made before means anything any more.
    pub(crate) fn clear(&mut self) {
        for (own, frozen) in self.own.iter_mut().zip(&mut self.frozen) {
            if let Some(frozen) = frozen.take() {
                // Used again if nobody took a share after all.
                *own = Arc::try_unwrap(frozen).unwrap_or_default();
            }
            own.clear();
            // One huge message must not hold its memory for good.
            own.shrink_to(2 * TURN_BYTES);
        }
        self.foreign.clear();
    }

    fn source_len(&self, source: Source) -> usize {
        let source = source as usize;
        if source >= OWN {
            return self.foreign[source - OWN].len();
        }
        self.frozen[source]
            .as_ref()
            .map_or(self.own[source].len(), |frozen| frozen.len())
    }
}

/// Bytes that outlived their turn.
#[derive(Debug)]
struct Kept {
    bytes: Arc<Vec<u8>>,
    start: usize,
    end: usize,
    /// May leave when this commit is known.
    ticket: Ticket,
}

/// Names a commit that a worker has asked for, in order; 0 has always been.
pub(crate) type Ticket = u64;

/// What one connection has yet to write.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Segments of this turn.
    fresh: Vec<Segment>,
    /// Of earlier turns, to be written first.
    backlog: VecDeque<Kept>,
    bytes: usize,
    /// What is pushed from now on may leave when this commit is known.
    ticket: Ticket,
    /// Acknowledgements that are held, by ticket, and how many they are.
    owed: Vec<(Ticket, usize)>,
}

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    All,
    /// The socket takes no more now.
    Part,
    /// The rest waits for a commit.
    Held,
}

impl Outbox {
    /// Bytes that are not written yet.
    pub(crate) const fn len(&self) -> usize {
        self.bytes
    }

    /// Whether this turn added nothing so far.
    pub(crate) const fn is_stale(&self) -> bool {
        self.fresh.is_empty()
    }

    /// Holds everything of this turn, and what comes later, until this commit is known.
    pub(crate) fn hold(&mut self, ticket: Ticket) {
        self.ticket = self.ticket.max(ticket);
    }

    /// Counts an acknowledgement that was just pushed, if it is held.
    #[inline]
    pub(crate) fn owe(&mut self, known: Ticket) {
        if self.ticket <= known {
            return;
        }
        match self.owed.last_mut() {
            Some((ticket, count)) if *ticket == self.ticket => *count += 1,
            _ => self.owed.push((self.ticket, 1)),
        }
    }

    /// How many of the counted acknowledgements are still held.
    #[inline]
    pub(crate) fn owes(&mut self, known: Ticket) -> usize {
        if self.owed.is_empty() {
            return 0;
        }
        self.owed.retain(|(ticket, _)| *ticket > known);
        self.owed.iter().map(|(_, count)| count).sum()
    }

    #[inline]
    pub(crate) fn push(&mut self, segment: Segment, turn: &mut Turn) {
        self.bytes += segment.len as usize;
        match self.fresh.last_mut() {
            Some(last)
                if last.source == segment.source && last.start + last.len == segment.start =>
            {
                last.len += segment.len;
            }
            Some(_) => self.fresh.push(segment),
            None => {
                if let Some(list) = turn.lists.pop() {
                    self.fresh = list;
                }
                self.fresh.push(segment);
            }
        }
    }

    /// Writes as much as `socket` takes, of what may leave now that `known` is committed, and keeps the rest
    /// past the end of the turn.
    ///
    /// # Errors
    /// The socket is broken; what was to be written no longer matters.
    pub(crate) fn flush(
        &mut self,
        socket: &mut impl Write,
        turn: &mut Turn,
        known: Ticket,
    ) -> io::Result<Written> {
        let mut taken = 0;
        let mut written = self.write_backlog(socket, known)?;
        if written == Written::All {
            written = match self.ticket > known {
                false => self.write_fresh(socket, turn, &mut taken)?,
                true if self.fresh.is_empty() => Written::All,
                true => Written::Held,
            };
        }
        if written != Written::All {
            self.keep(taken, turn);
        }
        let mut list = std::mem::take(&mut self.fresh);
        if list.capacity() > 0 {
            list.clear();
            turn.lists.push(list);
        }
        Ok(written)
    }

    /// Writes what earlier turns left, as far as it may leave.
    pub(crate) fn write_backlog(
        &mut self,
        socket: &mut impl Write,
        known: Ticket,
    ) -> io::Result<Written> {
        while !self.backlog.is_empty() {
            let mut slices = [IoSlice::new(&[]); VECTORS];
            let mut count = 0;
            let free = self.backlog.iter().take_while(|it| it.ticket <= known);
            for (slice, kept) in slices.iter_mut().zip(free) {
                *slice = IoSlice::new(&kept.bytes[kept.start..kept.end]);
                count += 1;
            }
            if count == 0 {
                return Ok(Written::Held);
            }
            let Some(mut taken) = take(socket, &slices[..count])? else {
                return Ok(Written::Part);
            };
            self.bytes -= taken;
            while let Some(kept) = self.backlog.front_mut() {
                let len = kept.end - kept.start;
                if taken < len {
                    kept.start += taken;
                    break;
                }
                taken -= len;
                self.backlog.pop_front();
            }
        }
        // An idle connection holds no memory for what it once had to write.
        self.backlog = VecDeque::new();
        Ok(Written::All)
    }

    /// Writes the segments of this turn; `taken` is how many bytes of them went out.
    fn write_fresh(
        &mut self,
        socket: &mut impl Write,
        turn: &Turn,
        taken: &mut usize,
    ) -> io::Result<Written> {
        let mut segments = &self.fresh[..];
        // How much of the first segment is out already.
        let mut done = 0;
        while !segments.is_empty() {
            let mut slices = [IoSlice::new(&[]); VECTORS];
            let mut count = 0;
            for (slice, segment) in slices.iter_mut().zip(segments) {
                let skip = if count == 0 { done } else { 0 };
                *slice = IoSlice::new(&turn.bytes(*segment)[skip..]);
                count += 1;
            }
            let Some(written) = take(socket, &slices[..count])? else {
                return Ok(Written::Part);
            };
            *taken += written;
            self.bytes -= written;
            done += written;
            while let Some(first) = segments.first() {
                if done < first.len as usize {
                    break;
                }
                done -= first.len as usize;
                segments = &segments[1..];
            }
        }
        Ok(Written::All)
    }

    /// Moves the segments of this turn, but for the first `taken` bytes, to the backlog.
    fn keep(&mut self, mut taken: usize, turn: &mut Turn) {
        let mut copy = Vec::new();
        for segment in &self.fresh {
            let len = segment.len as usize;
            if taken >= len {
                taken -= len;
                continue;
            }
            let (start, end) = (segment.start as usize + taken, segment.start as usize + len);
            taken = 0;
            let size = end - start;
            if size <= COPIED_BYTES || size < turn.source_len(segment.source) / SHARE {
                let rest = Segment {
                    start: start as u32,
                    len: size as u32,
                    ..*segment
                };
                copy.extend_from_slice(turn.bytes(rest));
            } else {
                self.backlog.extend(owned(&mut copy, self.ticket));
                self.backlog.push_back(Kept {
                    bytes: turn.freeze(segment.source),
                    start,
                    end,
                    ticket: self.ticket,
                });
            }
        }
        self.backlog.extend(owned(&mut copy, self.ticket));
    }
}

fn owned(copy: &mut Vec<u8>, ticket: Ticket) -> Option<Kept> {
    let bytes = std::mem::take(copy);
    let end = bytes.len();
    (end > 0).then(|| Kept {
        bytes: Arc::new(bytes),
        start: 0,
        end,
        ticket,
    })
}

/// How many bytes `socket` took; `None` if it takes none now.
fn take(socket: &mut impl Write, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
    loop {
        let result = match slices {
            [one] => socket.write(one),
            many => socket.write_vectored(many),
        };
        match result {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => return Ok(Some(written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes at a time, then blocks until it is given more room.
    struct Narrow {
        taken: Vec<u8>,
        room: usize,
        step: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let len = bytes.len().min(self.step).min(self.room);
            if len == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= len;
            self.taken.extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest::proptest! {
        #[test]
        fn every_byte_is_written_once_in_order_and_not_before_its_commit(
            turns in proptest::collection::vec(
                (proptest::collection::vec((0u32..4, 1usize..9_000), 0..8), 0usize..30_000, 0u64..4), 1..20),
            step in 1usize..5_000,
        ) {
            let mut socket = Narrow { taken: Vec::new(), room: 0, step };
            let (mut turn, mut outbox) = (Turn::default(), Outbox::default());
            let (mut expected, mut next) = (Vec::new(), 0u8);
            let (mut issued, mut known, mut free) = (0, 0, Vec::new());
            for (messages, room, dice) in turns {
                if dice == 0 {
                    issued += 1;
                    outbox.hold(issued);
                }
                for (source, len) in messages {
                    next = next.wrapping_add(1);
                    let body = vec![next; len];
                    expected.extend_from_slice(&body);
                    let segment = if source < OWN as u32 {
                        turn.write(source, |out| out.extend_from_slice(&body))
                    } else {
                        Segment { source: turn.adopt(Arc::new(body)), start: 0, len: len as u32 }
                    };
                    outbox.push(segment, &mut turn);
                }
                // How much may be out when a commit is known.
                free.push((issued, expected.len()));
                if dice == 1 {
                    known = issued.min(known + 1);
                }
                socket.room = room;
                let written = outbox.flush(&mut socket, &mut turn, known).expect("a sound socket");
                turn.clear();
                proptest::prop_assert_eq!(outbox.len(), expected.len() - socket.taken.len());
                proptest::prop_assert_eq!(written == Written::All, outbox.len() == 0);
                let most = free.iter().rfind(|(ticket, _)| *ticket <= known);
                proptest::prop_assert!(socket.taken.len() <= most.map_or(0, |it| it.1));
            }
            socket.room = usize::MAX;
            outbox.write_backlog(&mut socket, issued).expect("a sound socket");
            proptest::prop_assert_eq!(socket.taken, expected);
            proptest::prop_assert_eq!(outbox.len(), 0);
        }
    }

    #[test]
    fn neighbouring_segments_become_one() {
        let (mut turn, mut outbox) = (Turn::default(), Outbox::default());
        for _ in 0..10 {
            let segment = turn.write(SHARED, |out| out.extend_from_slice(b"message"));
            outbox.push(segment, &mut turn);
        }
        assert_eq!(
            outbox.fresh,
            [Segment {
                source: SHARED,
                start: 0,
                len: 70
            }]
        );
    }
}
