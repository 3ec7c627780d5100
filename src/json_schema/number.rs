//! JSON's numbers by their mathematical value: 1.0 equals 1, and 0.0075 is 75 times 0.0001.

use serde_json::Number;
use std::cmp::Ordering;

/// A number. Each has one form only, because a whole number within `i128` is never a float.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Num {
    Whole(i128),
    /// A fraction, or a number beyond `i128` (those are all whole).
    Float(f64),
}

impl Num {
    pub fn of(number: &Number) -> Num {
        let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
        match (whole, number.as_f64()) {
            (Some(whole), _) => Num::Whole(whole),
            // The cast of a whole float below 2^127 is exact.
            (None, Some(float)) if float.fract() == 0.0 && float.abs() < 2f64.powi(127) => Num::Whole(float as i128),
            (None, float) => Num::Float(float.unwrap_or_default()),
        }
    }

    /// Whether the number has no fraction.
    pub fn is_whole(self) -> bool {
        match self {
            Num::Whole(_) => true,
            Num::Float(float) => float.fract() == 0.0,
        }
    }

    /// Compares exactly: no whole number is rounded to a float.
    pub fn compare(self, other: Num) -> Ordering {
        match (self, other) {
            (Num::Whole(a), Num::Whole(b)) => a.cmp(&b),
            (Num::Float(a), Num::Float(b)) => a.total_cmp(&b),
            (Num::Whole(a), Num::Float(b)) => whole_to_float(a, b),
            (Num::Float(a), Num::Whole(b)) => whole_to_float(b, a).reverse(),
        }
    }
}

/// Compares a whole number with a float that is none. They are never equal, because the float has a fraction or is
/// beyond `i128`, where the cast saturates.
fn whole_to_float(whole: i128, float: f64) -> Ordering {
    match whole <= float.floor() as i128 {
        true => Ordering::Less,
        false => Ordering::Greater,
    }
}

/// The value of `multipleOf`, a positive decimal: `digits` × 10^`exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multiple {
    digits: u64,
    exponent: i32,
}

impl Multiple {
    /// Reads the value of `multipleOf`. `None`: it is not above zero.
    pub fn read(number: &Number) -> Option<Multiple> {
        let (negative, digits, exponent) = decimal(number)?;
        (!negative && digits > 0).then_some(Multiple { digits, exponent })
    }

    /// Whether a number is a multiple of this one. Both count as the decimals that are written, not as floats.
    pub fn divides(self, number: &Number) -> bool {
        let Some((_, digits, exponent)) = decimal(number) else { return false };
        let shift = exponent.abs_diff(self.exponent);
        let (digits, divisor) = (u128::from(digits), u128::from(self.digits));
        if digits == 0 {
            return true;
        }
        if exponent >= self.exponent {
            return ((digits % divisor) * power_of_ten(shift, divisor)).is_multiple_of(divisor);
        }
        let divisor = 10u128.checked_pow(shift).and_then(|power| power.checked_mul(divisor));
        divisor.is_some_and(|divisor| digits.is_multiple_of(divisor))
    }
}

/// 10^`exponent` modulo `modulus`. The modulus is at most 2^64, so no product overflows.
fn power_of_ten(mut exponent: u32, modulus: u128) -> u128 {
    let (mut power, mut base) = (1 % modulus, 10 % modulus);
    while exponent > 0 {
        if exponent & 1 == 1 {
            power = power * base % modulus;
        }
        base = base * base % modulus;
        exponent >>= 1;
    }
    power
}

/// Whether the number is negative, its digits, and its power of ten. A float is the shortest decimal that reads back as
/// the same float, which is the one that was written.
fn decimal(number: &Number) -> Option<(bool, u64, i32)> {
    if let Some(whole) = number.as_u64() {
        return Some((false, whole, 0));
    }
    if let Some(whole) = number.as_i64() {
        return Some((whole < 0, whole.unsigned_abs(), 0));
    }
    let text = format!("{:e}", number.as_f64()?);
    let (mantissa, exponent) = text.split_once('e')?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let negative = whole.starts_with('-');
    let digits: u64 = format!("{}{fraction}", whole.trim_start_matches('-')).parse().ok()?;
    let exponent: i32 = exponent.parse().ok()?;
    Some((negative, digits, exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?))
}
