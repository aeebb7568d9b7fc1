//! The few protocol buffer messages of which events consist (TensorFlow's `event.proto` and `summary.proto`).

/// The content of an event.
pub(super) enum Content<'a> {
    /// The first event of a file: its version.
    Version(&'a str),
    Scalar(&'a str, f32),
    Text(&'a str, &'a str),
    Image {
        tag: &'a str,
        height: u32,
        width: u32,
        /// 1 for greyscale, 3 for RGB, which are also the colorspace numbers of `summary.proto`.
        channels: usize,
        png: &'a [u8],
    },
}

/// Wire types of fields.
const VARINT: u64 = 0;
const EIGHT_BYTES: u64 = 1;
const SIZED: u64 = 2;
const FOUR_BYTES: u64 = 5;

/// Field numbers of `Event`.
const WALL_TIME: u64 = 1;
const STEP: u64 = 2;

/// A message under construction; fields are added in the order of their numbers, as Google's writers do.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut self, field: u64, value: u64) -> Self {
        // 0 is the default of a missing field, and isn't written.
        if value != 0 {
            self.number(field << 3 | VARINT);
            self.number(value);
        }
        self
    }

    fn sized(mut self, field: u64, bytes: &[u8]) -> Self {
        self.number(field << 3 | SIZED);
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn fixed(mut self, field: u64, bytes: &[u8]) -> Self {
        self.number(field << 3 | if bytes.len() == 8 { EIGHT_BYTES } else { FOUR_BYTES });
        self.0.extend_from_slice(bytes);
        self
    }

    /// A varint: seven bits per byte, lowest first; the highest bit of a byte means that more follow.
    fn number(&mut self, mut value: u64) {
        while value > 0x7F {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// The bytes of an event.
pub(super) fn event(wall_time: f64, step: u64, content: &Content<'_>) -> Vec<u8> {
    let event = Message::default().fixed(WALL_TIME, &wall_time.to_le_bytes()).varint(STEP, step);
    let value = match content {
        Content::Version(version) => return event.sized(3, version.as_bytes()).0,
        // `Summary.Value`: tag 1, simple_value 2.
        Content::Scalar(tag, value) => Message::default().sized(1, tag.as_bytes()).fixed(2, &value.to_le_bytes()),
        // Image 4: height 1, width 2, colorspace 3, encoded_image_string 4.
        Content::Image { tag, height, width, channels, png } => {
            let sizes = Message::default().varint(1, (*height).into()).varint(2, (*width).into());
            let image = sizes.varint(3, *channels as u64).sized(4, png);
            Message::default().sized(1, tag.as_bytes()).sized(4, &image.0)
        }
        // Tensor 8: dtype 1 (7 is a string), tensor_shape 2 (one axis of size 1), string_val 8; metadata 9: plugin_data 1,
        // plugin_name 1.
        Content::Text(tag, text) => {
            let axis = Message::default().varint(1, 1);
            let shape = Message::default().sized(2, &axis.0);
            let tensor = Message::default().varint(1, 7).sized(2, &shape.0).sized(8, text.as_bytes());
            let metadata = Message::default().sized(1, &Message::default().sized(1, b"text").0);
            Message::default().sized(1, tag.as_bytes()).sized(8, &tensor.0).sized(9, &metadata.0)
        }
    };
    event.sized(5, &Message::default().sized(1, &value.0).0).0
}

/// The step of an event; `None` if the bytes aren't a valid message.
pub(super) fn step(event: &[u8]) -> Option<u64> {
    let (mut rest, mut step) = (event, 0);
    while !rest.is_empty() {
        let key = number(&mut rest)?;
        let size = match key & 7 {
            VARINT => {
                let value = number(&mut rest)?;
                step = if key >> 3 == STEP { value } else { step };
                0
            }
            EIGHT_BYTES => 8,
            SIZED => number(&mut rest)?,
            FOUR_BYTES => 4,
            _ => return None,
        };
        rest = rest.get(usize::try_from(size).ok()?..)?;
    }
    Some(step)
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
