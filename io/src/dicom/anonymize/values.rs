//! Values that take the place of others: dummies, dates of another day, UIDs and names that a key gives.

use crate::digest::keyed;

/// UIDs of the standard itself, which identify nobody.
const STANDARD: &str = "1.2.840.10008.";

/// A value that says nothing, consistent with its representation.
pub(super) fn dummy(vr: &[u8; 2]) -> Vec<u8> {
    match vr {
        b"AS" => b"000Y".to_vec(),
        b"DA" => b"19000101".to_vec(),
        b"DT" => b"19000101000000".to_vec(),
        b"TM" => b"000000".to_vec(),
        b"DS" | b"IS" => b"0".to_vec(),
        b"UR" => b"http://anonymized.invalid/".to_vec(),
        b"US" | b"SS" | b"OW" | b"OB" | b"UN" => vec![0; 2],
        b"UL" | b"SL" | b"FL" | b"OL" | b"OF" | b"AT" => vec![0; 4],
        b"FD" | b"SV" | b"UV" | b"OD" | b"OV" => vec![0; 8],
        _ => b"ANONYMIZED".to_vec(),
    }
}

/// The UIDs, several with `\` between them, that take the place of these.
pub(super) fn uids(key: &[u8], value: &str) -> String {
    let parts: Vec<String> = value.split('\\').map(|uid| self::uid(key, uid.trim_matches([' ', '\0']))).collect();
    parts.join("\\")
}

fn uid(key: &[u8], uid: &str) -> String {
    if uid.is_empty() || uid.starts_with(STANDARD) {
        return uid.to_owned();
    }
    let code = keyed(key, &[b"uid", uid.as_bytes()]);
    super::super::uid::of_hash(code.first_chunk::<16>().map_or(0, |bytes| u128::from_be_bytes(*bytes)))
}

/// What takes the place of a patient's identifier or name: 12 letters and digits.
pub(super) fn pseudonym(key: &[u8], patient: &str) -> String {
    let code = crate::digest::hexadecimal(&keyed(key, &[b"patient", patient.as_bytes()]));
    code.chars().take(12).collect::<String>().to_uppercase()
}

/// By how many days the dates of a patient are moved: 1 to 3650 into the past.
pub(super) fn shift(key: &[u8], patient: &str) -> i64 {
    let code = keyed(key, &[b"days", patient.as_bytes()]);
    let number = code.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    -((number % 3650) as i64 + 1)
}

/// Dates or dates with times, several with `\` between them, moved by so many days; times stay. `None` if they aren't dates.
pub(super) fn moved(value: &str, days: i64) -> Option<String> {
    let parts: Option<Vec<String>> = value.split('\\').map(|part| date(part.trim_matches([' ', '\0']), days)).collect();
    Some(parts?.join("\\"))
}

fn date(text: &str, days: i64) -> Option<String> {
    if text.is_empty() {
        return Some(String::new());
    }
    // Of DICOM's predecessor, with points.
    let plain: String = if text.get(4..5) == Some(".") && text.get(7..8) == Some(".") {
        text.replace('.', "")
    } else {
        text.to_owned()
    };
    let digits = plain.bytes().take_while(u8::is_ascii_digit).count();
    // A date with time may end behind the year or the month.
    let length = match digits {
        4 | 6 => digits,
        8.. => 8,
        _ => return None,
    };
    // What isn't said is the first.
    let number = |place: std::ops::Range<usize>| match plain.get(place) {
        Some("") | None => Some(1),
        Some(text) => text.parse::<i64>().ok(),
    };
    let (year, month, day) = (number(0..4)?, number(4..length.clamp(4, 6))?, number(6..length.max(6))?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let (year, month, day) = civil(days_of(year, month, day).checked_add(days)?);
    let whole = (1..=9999).contains(&year).then(|| format!("{year:04}{month:02}{day:02}"))?;
    Some(format!("{}{}", whole.get(..length)?, plain.get(length..).unwrap_or_default()))
}

/// Days since 1970-01-01 in the Gregorian calendar.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the day that leap years add is the last.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_move_by_days() {
        for (before, days, after) in [
            ("20240301", -1, Some("20240229")),
            ("20230301", -1, Some("20230228")),
            ("19000301", -1, Some("19000228")),
            ("20000101\\20001231", -366, Some("19981231\\19991231")),
            ("20240101235959.123456+0100", -1, Some("20231231235959.123456+0100")),
            ("2024.01.01 ", -1, Some("20231231")),
            ("2024", -1, Some("2023")),
            ("202403", -31, Some("202401")),
            ("", -5, Some("")),
            ("00010101", -1, None),
            ("20241301", -1, None),
            ("20240100", -1, None),
            ("yesterday", -1, None),
            ("123", -1, None),
        ] {
            assert_eq!(moved(before, days).as_deref(), after, "{before}");
        }
        for days in (-800_000..800_000).step_by(37) {
            let (year, month, day) = civil(days);
            assert_eq!(days_of(year, month, day), days);
        }
    }

    #[test]
    fn a_key_gives_the_same_for_the_same() {
        let (a, b) = (uids(b"key", "1.2.3\\1.2.840.10008.1.2\\1.2.4"), uids(b"other", "1.2.3"));
        let parts: Vec<&str> = a.split('\\').collect();
        assert_eq!((parts.len(), parts[1]), (3, "1.2.840.10008.1.2"));
        assert!(parts[0] == uids(b"key", "1.2.3\0") && parts[0] != parts[2] && parts[0] != b);
        assert!(parts[0].starts_with("2.25.") && parts[0].len() <= 64);
        assert_ne!(pseudonym(b"key", "a"), pseudonym(b"key", "b"));
        let shifts: Vec<i64> = (0..1000).map(|i| shift(b"key", &i.to_string())).collect();
        assert!(shifts.iter().all(|days| (-3650..=-1).contains(days)));
        assert!(shifts.iter().min() < Some(&-3500) && shifts.iter().max() > Some(&-150));
    }
}
