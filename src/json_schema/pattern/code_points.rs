//! Sets of code points, as ranges.

/// A range of code points, both ends included. None is a surrogate, because no text contains one.
pub type Range = (u32, u32);

const DIGITS: [Range; 1] = [(0x30, 0x39)];
const WORD: [Range; 4] = [(0x30, 0x39), (0x41, 0x5a), (0x5f, 0x5f), (0x61, 0x7a)];
/// `WhiteSpace` and `LineTerminator` of ECMA-262.
const SPACE: [Range; 10] = [
    (0x09, 0x0d),
    (0x20, 0x20),
    (0xa0, 0xa0),
    (0x1680, 0x1680),
    (0x2000, 0x200a),
    (0x2028, 0x2029),
    (0x202f, 0x202f),
    (0x205f, 0x205f),
    (0x3000, 0x3000),
    (0xfeff, 0xfeff),
];
/// The code points that `.` does not match.
pub const LINE_ENDS: [Range; 3] = [(0x0a, 0x0a), (0x0d, 0x0d), (0x2028, 0x2029)];

/// The code points that an escape such as `\d` stands for.
pub fn class_escape(letter: char) -> Option<Vec<Range>> {
    match letter {
        'd' => Some(DIGITS.to_vec()),
        'D' => Some(complement(&DIGITS)),
        'w' => Some(WORD.to_vec()),
        'W' => Some(complement(&WORD)),
        's' => Some(SPACE.to_vec()),
        'S' => Some(complement(&SPACE)),
        _ => None,
    }
}

/// The same code points as ranges in order that do not overlap.
pub fn normalized(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut out: Vec<Range> = Vec::new();
    for (start, end) in ranges {
        match out.last_mut() {
            Some(last) if start <= last.1.saturating_add(1) => last.1 = last.1.max(end),
            _ => out.push((start, end)),
        }
    }
    out
}

/// All code points that are in none of `ranges`, which must be [`normalized`].
pub fn complement(ranges: &[Range]) -> Vec<Range> {
    let mut out = Vec::new();
    let mut from = 0;
    for &(start, end) in ranges {
        out.extend(start.checked_sub(1).filter(|last| from <= *last).map(|last| (from, last)));
        from = end + 1;
    }
    out.extend((from <= 0x10ffff).then_some((from, 0x10ffff)));
    // An end that is a surrogate is moved past the surrogates.
    let outside = |(start, end): Range| {
        let start = if (0xd800..=0xdfff).contains(&start) { 0xe000 } else { start };
        let end = if (0xd800..=0xdfff).contains(&end) { 0xd7ff } else { end };
        (start <= end).then_some((start, end))
    };
    out.into_iter().filter_map(outside).collect()
}
