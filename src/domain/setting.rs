//! How settings are written that are one of a few words, addresses, or lists.

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::de::{Error, IntoDeserializer};
use serde::{Deserialize, Deserializer};

/// Reads one of the words of an enum; what is refused is told which ones there are.
///
/// # Errors
/// It is none of them.
pub fn choice<'de, T, D>(input: D) -> Result<T, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let word = String::deserialize(input)?;
    T::deserialize(word.into_deserializer())
}

/// The same for what need not be there.
///
/// # Errors
/// As of [`choice`].
pub fn some_choice<'de, T, D>(input: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    choice(input).map(Some)
}

/// A list in a file, or text with commas, which is all that the environment has; nothing is an empty list.
///
/// # Errors
/// A word of it makes no sense.
pub fn one_or_many<'de, T, D>(input: D) -> Result<Vec<T>, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    let words = match OneOrMany::deserialize(input)? {
        OneOrMany::One(text) if text.trim().is_empty() => Vec::new(),
        OneOrMany::One(text) => text.split(',').map(|it| it.trim().to_owned()).collect(),
        OneOrMany::Many(list) => list,
    };
    let parsed = words.iter().map(|it| it.parse().map_err(Error::custom));
    parsed.collect()
}

/// Where to listen.
///
/// # Errors
/// It is no address of a socket.
pub fn address<'de, D: Deserializer<'de>>(input: D) -> Result<SocketAddr, D::Error> {
    let some = address_or_empty(input)?;
    some.ok_or_else(|| Error::custom("expected an address such as \"127.0.0.1:7000\""))
}

/// Where to listen, or nowhere: empty text.
///
/// # Errors
/// As of [`address`].
pub fn address_or_empty<'de, D>(input: D) -> Result<Option<SocketAddr>, D::Error>
where
    D: Deserializer<'de>,
{
    match String::deserialize(input)?.as_str() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            Error::custom("expected an address with a port, such as \"127.0.0.1:7000\"")
        }),
    }
}
