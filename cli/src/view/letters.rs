//! The letters of the body's sides, five by seven pixels.

use super::picture::Picture;

pub(super) const WIDTH: usize = 5;
pub(super) const HEIGHT: usize = 7;

/// The rows of a letter, its first column in the highest of five bits.
fn rows(letter: char) -> [u8; HEIGHT] {
    match letter {
        'R' => [0b11110, 0b10001, 0b10001, 0b11110, 0b10100, 0b10010, 0b10001],
        'L' => [0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b11111],
        'A' => [0b01110, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001],
        'P' => [0b11110, 0b10001, 0b10001, 0b11110, 0b10000, 0b10000, 0b10000],
        'S' => [0b01111, 0b10000, 0b10000, 0b01110, 0b00001, 0b00001, 0b11110],
        'I' => [0b01110, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110],
        _ => [0; HEIGHT],
    }
}

/// Draws a letter, its upper left corner at this place, in white on black so that it is seen on any grey.
pub(super) fn put(picture: &mut Picture, letter: char, left: usize, top: usize) {
    for y in 0..HEIGHT + 2 {
        for x in 0..WIDTH + 2 {
            picture.set((left + x).saturating_sub(1), (top + y).saturating_sub(1), [0; 3]);
        }
    }
    for (y, row) in rows(letter).into_iter().enumerate() {
        for x in (0..WIDTH).filter(|x| row >> (WIDTH - 1 - x) & 1 == 1) {
            picture.set(left + x, top + y, [255; 3]);
        }
    }
}
