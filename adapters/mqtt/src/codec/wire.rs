//! The data types of section 1.5, read from and written to bytes.

use super::Fault;

/// Reads from the front of what is left of a packet.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline]
    pub(super) const fn rest(self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Nothing may be left.
    pub(super) const fn finish(self) -> Result<(), Fault> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Fault::TrailingBytes)
        }
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        let (&byte, rest) = self.rest.split_first().ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, Fault> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Fault::Truncated)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// Binary data: two bytes of length, then as many bytes (1.5.6).
    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.u16()?;
        self.take(len.into())
    }

    /// UTF-8 without NUL [MQTT5-1.5.4-1], [MQTT5-1.5.4-2].
    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a str, Fault> {
        let bytes = self.binary()?;
        if memchr::memchr(0, bytes).is_some() {
            return Err(Fault::Text);
        }
        std::str::from_utf8(bytes).map_err(|_| Fault::Text)
    }

    /// A variable byte integer in as few bytes as it can be [MQTT5-1.5.5-1].
    pub(super) fn variable(&mut self) -> Result<u32, Fault> {
        match variable(self.rest)? {
            Some((value, len)) => {
                if len > 1 && value < 1 << (7 * (len - 1)) {
                    return Err(Fault::VariableByteInteger);
                }
                self.rest = &self.rest[len..];
                Ok(value)
            }
            None => Err(Fault::Truncated),
        }
    }

    /// A packet identifier is never 0 [MQTT5-2.2.1-3].
    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<u16, Fault> {
        match self.u16()? {
            0 => Err(Fault::PacketId),
            id => Ok(id),
        }
    }
}

/// The variable byte integer at the front of `bytes` and how many bytes it takes; `None` if it is cut off.
#[inline]
pub(crate) fn variable(bytes: &[u8]) -> Result<Option<(u32, usize)>, Fault> {
    let mut value = 0;
    for (n, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Ok(Some((value, n + 1)));
        }
    }
    if bytes.len() >= 4 {
        Err(Fault::VariableByteInteger)
    } else {
        Ok(None)
    }
}

/// How many bytes [`put_variable`] takes for `value`.
pub(crate) const fn variable_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

#[inline]
pub(crate) fn put_variable(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Text or binary data. What is too long for its length field is cut at the longest that fits.
#[inline]
pub(super) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(
        bytes.len() <= usize::from(u16::MAX),
        "checked where it was read"
    );
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}
