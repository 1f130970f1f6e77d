//! Quantities of resources, exactly.
//!
//! The grammar is that of `k8s.io/apimachinery` (`pkg/api/resource`): a decimal number with a decimal (`m`, `k`, `M`, …) or
//! binary (`Ki`, `Mi`, …) suffix or an exponent; what does not divide is rounded up. The crates for this are bound to old
//! versions of the API's types and carry a decimal arithmetic, for one function.

/// Digits of a number that are looked at: more than 2^64 thousandths of anything has.
const DIGITS_MAX: usize = 30;

/// Thousandths.
pub(super) fn milli(text: &str) -> Result<u64, &'static str> {
    scaled(text, 3)
}

/// Units, as bytes.
pub(super) fn units(text: &str) -> Result<u64, &'static str> {
    scaled(text, 0)
}

/// The number times 10 to `scale`, rounded up; at most `u64::MAX`.
fn scaled(text: &str, scale: i32) -> Result<u64, &'static str> {
    const WRONG: &str = "expected a quantity such as 250m, 1.5Gi or 2e3";
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if unsigned.starts_with('-') {
        return Err("expected a quantity that is not negative");
    }
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(WRONG);
    }
    let (ten, two) = exponents(suffix).ok_or(WRONG)?;
    let digits = format!("{whole}{}", fraction.trim_end_matches('0'));
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(0);
    }
    if digits.len() > DIGITS_MAX {
        return Err("expected a quantity with fewer digits");
    }
    let mantissa: u128 = digits.parse().map_err(|_| WRONG)?;
    let fraction_digits = i32::try_from(fraction.trim_end_matches('0').len()).map_err(|_| WRONG)?;
    Ok(product(mantissa, ten - fraction_digits + scale, two))
}

/// `mantissa * 10^ten * 2^two`, rounded up; at most `u64::MAX`.
fn product(mantissa: u128, ten: i32, two: u32) -> u64 {
    // A mantissa is below 10^30 (2^100), so with 2^60 it may pass 2^128: then it is more than fits anyway, unless it is
    // divided again, which no quantity that an API server took needs.
    let Some(value) = mantissa.checked_mul(1 << two) else { return u64::MAX };
    let value = match u32::try_from(ten) {
        Ok(ten) => 10_u128.checked_pow(ten).and_then(|power| value.checked_mul(power)),
        Err(_) => Some(10_u128.checked_pow(ten.unsigned_abs()).map_or(1, |power| value.div_ceil(power))),
    };
    value.and_then(|value| u64::try_from(value).ok()).unwrap_or(u64::MAX)
}

/// Powers of ten and of two that a suffix stands for.
fn exponents(suffix: &str) -> Option<(i32, u32)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            // Beyond this all is too large or nearly nothing.
            (exponent.clamp(-60, 60), 0)
        }
    })
}
