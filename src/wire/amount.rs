//! Money. An [`Amount`] counts atomic units of a token; a [`Price`] is the decimal that a creator writes ("0.01"). The
//! one conversion between them is [`Price::to_amount`]. There are no floats.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A number of atomic units of an asset (USDC has 6 decimals: `10000` is 0.01 USDC).
///
/// In JSON it is a decimal string without a sign and without leading zeros (x402 v2, 5.1.2 `amount`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(pub u128);

impl Amount {
    /// The amount as a 32-byte word of the EVM's ABI, in hex.
    pub fn to_word(self) -> String {
        format!("0x{:064x}", self.0)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not a whole number from 0 to 2^128 - 1, written without a sign and without leading zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a whole number of atomic units")]
pub struct NotAnAmount;

impl FromStr for Amount {
    type Err = NotAnAmount;

    fn from_str(text: &str) -> Result<Self, NotAnAmount> {
        let is_number = text.bytes().all(|b| b.is_ascii_digit());
        let is_canonical = text == "0" || !text.starts_with('0');
        if !is_number || !is_canonical {
            return Err(NotAnAmount);
        }
        text.parse().map(Amount).map_err(|_| NotAnAmount)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A price in units of the asset, as its creator writes it: `"0.01"`, `"3"`, `"2.50"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Price {
    whole: u128,
    fraction: String,
}

/// Why a text is not a price, or why a price has no exact amount in an asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    #[error("a price is digits, or digits.digits")]
    Malformed,
    /// The price has more decimals than the asset, and rounding would change what is charged.
    #[error("the price has more decimals than the asset")]
    TooFine,
    /// The price is beyond 2^128 atomic units.
    #[error("the price is too large")]
    TooLarge,
}

impl FromStr for Price {
    type Err = PriceError;

    fn from_str(text: &str) -> Result<Self, PriceError> {
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
            Some(_) => return Err(PriceError::Malformed),
            None => (text, ""),
        };
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) {
            return Err(PriceError::Malformed);
        }
        Ok(Price {
            whole: whole.parse().map_err(|_| PriceError::TooLarge)?,
            fraction: fraction.trim_end_matches('0').to_owned(),
        })
    }
}

impl TryFrom<String> for Price {
    type Error = PriceError;
    fn try_from(text: String) -> Result<Self, PriceError> {
        text.parse()
    }
}

impl From<Price> for String {
    fn from(price: Price) -> String {
        price.to_string()
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fraction.as_str() {
            "" => write!(f, "{}", self.whole),
            fraction => write!(f, "{}.{fraction}", self.whole),
        }
    }
}

impl Price {
    /// A price without decimals.
    pub const fn whole(whole: u128) -> Self {
        Self { whole, fraction: String::new() }
    }

    /// The exact number of atomic units of an asset with `decimals` decimals.
    pub fn to_amount(&self, decimals: u8) -> Result<Amount, PriceError> {
        let missing = usize::from(decimals).checked_sub(self.fraction.len()).ok_or(PriceError::TooFine)?;
        let scaled =
            |n: u128, by: usize| 10u128.checked_pow(u32::try_from(by).ok()?).and_then(|scale| n.checked_mul(scale));
        let fraction: u128 = match self.fraction.as_str() {
            "" => 0,
            digits => digits.parse().map_err(|_| PriceError::TooLarge)?,
        };
        scaled(self.whole, usize::from(decimals))
            .zip(scaled(fraction, missing))
            .and_then(|(whole, fraction)| whole.checked_add(fraction))
            .map(Amount)
            .ok_or(PriceError::TooLarge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn atomic(price: &str, decimals: u8) -> Result<u128, PriceError> {
        price.parse::<Price>().and_then(|p| p.to_amount(decimals)).map(|a| a.0)
    }

    #[test]
    fn a_price_becomes_exact_atomic_units() {
        assert_eq!(atomic("0.01", 6), Ok(10_000));
        assert_eq!(atomic("3", 6), Ok(3_000_000));
        assert_eq!(atomic("2.50", 6), Ok(2_500_000));
        assert_eq!(atomic("0.000001", 6), Ok(1));
        assert_eq!(atomic("1.1000000", 6), Ok(1_100_000));
        assert_eq!(atomic("0.1", 18), Ok(100_000_000_000_000_000));
    }

    #[test]
    fn a_price_finer_than_the_asset_is_refused_not_rounded() {
        assert_eq!(atomic("0.0000001", 6), Err(PriceError::TooFine));
    }

    #[test]
    fn malformed_prices_are_refused() {
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", " 1", "0x1", "1.2.3"] {
            assert_eq!(text.parse::<Price>(), Err(PriceError::Malformed), "{text}");
        }
        assert_eq!(atomic(&"9".repeat(60), 6), Err(PriceError::TooLarge));
    }

    #[test]
    fn an_amount_has_one_spelling() {
        assert_eq!("10000".parse(), Ok(Amount(10_000)));
        assert_eq!("0".parse(), Ok(Amount(0)));
        for text in ["", "01", "+1", "-1", "1.0", "1e3", " 1", "٣"] {
            assert_eq!(text.parse::<Amount>(), Err(NotAnAmount), "{text}");
        }
    }
}
