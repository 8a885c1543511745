//! Harmful names for tests, and a check that an output does not contain their characters.

/// Every code unit of the basic plane in one text; surrogates as the replacement character.
pub fn every_code_unit() -> String {
    let units: Vec<u16> = (0..=u16::MAX).collect();
    units.iter().map(|unit| String::from_utf16_lossy(&[*unit])).collect()
}

/// Names of at most this many bytes that together contain every code unit of the basic plane.
pub fn rude_names(most_bytes: usize) -> Vec<String> {
    let mut names = vec![String::new()];
    for c in every_code_unit().chars() {
        if names.last().is_none_or(|name| name.len() + c.len_utf8() > most_bytes) {
            names.push(String::new());
        }
        names.last_mut().unwrap().push(c);
    }
    names
}

/// Whether `text` has a character that no output may have, found independently of the rule of [`plain`](crate::plain): by what
/// regex-syntax knows of Unicode. Line breaks are the output's own.
pub fn rude_characters(text: &str) -> Vec<char> {
    let rude = regex::Regex::new(r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\x{FFFE}\x{FFFF}&&[^\n]]").unwrap();
    rude.find_iter(text).flat_map(|found| found.as_str().chars().collect::<Vec<_>>()).collect()
}
