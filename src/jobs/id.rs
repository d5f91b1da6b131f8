//! [`JobId`].

use std::{
    error::Error,
    fmt::{self, Write},
    hash::{BuildHasher, RandomState},
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A job's id. It is the same for each run of the job, on any machine, and unique to the job.
///
/// A job can use its id to be idempotent: as a payment provider's idempotency key, or in a unique
/// column of the row that records its result. apalis' backends keep the job under this id.
///
/// The id is a [ULID] of 26 characters: the time in milliseconds, then 80 random bits. A job of a
/// later millisecond has a greater id, which suits the indices of databases.
///
/// [ULID]: https://github.com/ulid/spec
///
/// ```
/// use tower_background_tasks::JobId;
///
/// let id: JobId = "01JDMSBV8ZQ8K3XW5T6N4Y7R2C".parse().unwrap();
/// assert_eq!(id.to_string(), "01JDMSBV8ZQ8K3XW5T6N4Y7R2C");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(u128);

impl JobId {
    /// The id of a stored value that has no valid id.
    pub(crate) const NONE: Self = Self(0);

    /// Makes a new id.
    ///
    /// The standard library keys its hashers from the system's source of randomness. Such a hash
    /// of a counter is as good as unique, but not secret.
    pub(crate) fn random() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let (count, keys) = (COUNT.fetch_add(1, Ordering::Relaxed), RandomState::new());
        let half = |which: bool| u128::from(keys.hash_one((count, which)));
        let random = (half(false) << 64 | half(true)) >> 48;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let millis = now.unwrap_or_default().as_millis();
        Self(millis << 80 | random)
    }
}

/// Crockford's base 32: each digit is five bits.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// 26 digits hold 130 bits. The first two are always zero.
const LENGTH: usize = 26;

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |place| {
            let five = self.0 >> (5 * (LENGTH - 1 - place)) & 31;
            char::from(DIGITS[five as usize])
        };
        (0..LENGTH).try_for_each(|place| f.write_char(digit(place)))
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
        if text.len() != LENGTH || text.as_bytes()[0] > b'7' {
            return Err(ParseJobIdError);
        }
        let five = |byte: u8| {
            let upper = byte.to_ascii_uppercase();
            DIGITS.iter().position(|&digit| digit == upper)
        };
        let number = text.bytes().try_fold(0, |number, byte| {
            let five = five(byte).ok_or(ParseJobIdError)?;
            Ok(number << 5 | five as u128)
        });
        number.map(Self)
    }
}

/// A text could not be parsed as a [`JobId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseJobIdError;

impl fmt::Display for ParseJobIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no job's id: it must be a ULID of 26 characters, as `JobId` writes them")
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
    fn only_26_digits_of_base_32_are_one() {
        let digits = "01JDMSBV8ZQ8K3XW5T6N4Y7R2C";
        let lower = digits.to_lowercase();
        assert_eq!(lower.parse::<JobId>().unwrap().to_string(), digits);
        let (last, first) = ("7ZZZZZZZZZZZZZZZZZZZZZZZZZ", JobId::NONE.to_string());
        assert_eq!(last.parse::<JobId>(), Ok(JobId(u128::MAX)));
        assert_eq!(first.parse::<JobId>(), Ok(JobId::NONE));
        let signed = digits.replacen('0', "+", 1);
        let (short, long) = (&digits[1..], format!("0{digits}"));
        let (letter_u, two_bytes) = (digits.replace('J', "U"), digits.replacen("01", "é", 1));
        let too_great = digits.replacen('0', "8", 1);
        for odd in [
            &signed, short, &long, "", "f", &letter_u, &two_bytes, &too_great,
        ] {
            assert_eq!(odd.parse::<JobId>(), Err(ParseJobIdError), "{odd}");
        }
    }

    #[test]
    fn ids_of_later_jobs_are_greater() {
        let first = JobId::random();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(first < JobId::random());
        assert!(first.to_string() < JobId::random().to_string());
    }
}
