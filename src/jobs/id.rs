//! [`JobId`].

use std::{
    error::Error,
    fmt,
    hash::{BuildHasher, RandomState},
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A job's id, random in 128 bits. It is the same for each run of the job, wherever it runs, and no
/// other job has it.
///
/// The id makes a job idempotent, as a key for the payment provider or a unique column of the row
/// that says "done". As text it is 32 hexadecimal digits.
///
/// ```
/// use tower_background_tasks::JobId;
///
/// let id: JobId = "0f8fad5bd9cb469fa16570867728950e".parse().unwrap();
/// assert_eq!(id.to_string(), "0f8fad5bd9cb469fa16570867728950e");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u128);

impl JobId {
    /// The id of what is no job.
    pub(crate) const NONE: Self = Self(0);

    /// Makes a new id.
    ///
    /// The standard library's hashers are keyed from the system's source of randomness. What they
    /// make of a count is unique, though no secret.
    pub(crate) fn random() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let (count, keys) = (COUNT.fetch_add(1, Ordering::Relaxed), RandomState::new());
        let half = |which: bool| u128::from(keys.hash_one((count, which)));
        Self(half(false) << 64 | half(true))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

impl FromStr for JobId {
    type Err = ParseJobIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The number parser alone would accept a sign, and any number of digits.
        let is_digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = is_digits.then(|| u128::from_str_radix(text, 16).ok());
        number.flatten().map(Self).ok_or(ParseJobIdError)
    }
}

/// The text is no [`JobId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseJobIdError;

impl fmt::Display for ParseJobIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no job's id: it must be 32 hexadecimal digits, as `JobId` writes them")
    }
}

impl Error for ParseJobIdError {}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_are_the_same_on_any_thread() {
        let many = || (0..10_000).map(|_| JobId::random()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(many)).collect();
        let ids = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap());
        assert_eq!(ids.collect::<HashSet<_>>().len(), 40_000);
    }

    #[test]
    fn only_32_hexadecimal_digits_are_one() {
        let digits = "0f8fad5bd9cb469fa16570867728950e";
        let upper = digits.to_uppercase();
        assert_eq!(upper.parse::<JobId>().unwrap().to_string(), digits);
        let signed = digits.replacen('0', "+", 1);
        let (short, long) = (&digits[1..], format!("0{digits}"));
        for odd in [&signed, short, &long, "", "f", &digits.replace('0', "é")] {
            assert_eq!(odd.parse::<JobId>(), Err(ParseJobIdError), "{odd}");
        }
    }
}
