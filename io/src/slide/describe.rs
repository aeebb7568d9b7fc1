//! What descriptions say of a slide: who has written it, and how large a pixel is.

/// A kind of slides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Aperio,
    Ome,
    Other,
}

impl Kind {
    pub(super) fn of(description: &str) -> Self {
        if description.starts_with("Aperio") {
            Self::Aperio
        } else if description.contains("<OME") {
            Self::Ome
        } else {
            Self::Other
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Aperio => "Aperio SVS",
            Self::Ome => "OME-TIFF",
            Self::Other => "tiled TIFF",
        }
    }

    /// The micrometres of a pixel along x and y, if the description says them.
    pub(super) fn micrometres(self, description: &str) -> Option<[f64; 2]> {
        let steps = match self {
            Self::Aperio => {
                let fields = description.split('|').filter_map(|field| field.split_once('='));
                let field = fields.into_iter().find(|(name, _)| name.trim() == "MPP")?;
                [field.1.trim().parse().ok()?; 2]
            }
            Self::Ome => {
                let (_, pixels) = description.split_once("<Pixels")?;
                let (pixels, _) = pixels.split_once('>')?;
                let step = |axis: char| {
                    let size = attribute(pixels, &format!("PhysicalSize{axis}"))?.parse::<f64>().ok()?;
                    let unit = attribute(pixels, &format!("PhysicalSize{axis}Unit")).unwrap_or("µm");
                    Some(size * in_micrometres(unit)?)
                };
                [step('X')?, step('Y')?]
            }
            Self::Other => return None,
        };
        steps.iter().all(|step| step.is_finite() && *step > 0.0).then_some(steps)
    }
}

/// The value of an attribute of an XML element.
fn attribute<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = element;
    while let Some((before, after)) = rest.split_once(name) {
        rest = after;
        let value = after.trim_start().strip_prefix('=').map(str::trim_start);
        let begins = before.ends_with(char::is_whitespace);
        if let Some(value) = value.filter(|_| begins) {
            let quote = value.chars().next().filter(|quote| ['"', '\''].contains(quote))?;
            return value.get(1..)?.split(quote).next();
        }
    }
    None
}

/// The micrometres of a unit of OME's.
fn in_micrometres(unit: &str) -> Option<f64> {
    Some(match unit {
        // The micro sign, the Greek letter, and what writers of ASCII make of them.
        "µm" | "μm" | "&#181;m" | "&#xB5;m" | "um" => 1.0,
        "nm" => 1e-3,
        "mm" => 1e3,
        "cm" => 1e4,
        "m" => 1e6,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_say_the_size_of_a_pixel() {
        for (text, kind, size) in [
            ("Aperio Image Library v10\n1x1|AppMag = 20|MPP = 0.4990", Kind::Aperio, Some([0.499; 2])),
            ("Aperio|MPP = 0", Kind::Aperio, None),
            ("Aperio|AppMag = 20", Kind::Aperio, None),
            (
                "<?xml?><OME><Image><Pixels Type=\"uint8\" PhysicalSizeXUnit='nm' PhysicalSizeX=\"250\" PhysicalSizeY = '0.5'/>",
                Kind::Ome,
                Some([0.25, 0.5]),
            ),
            ("<OME><Pixels PhysicalSizeX=\"1\" PhysicalSizeY=\"1\" PhysicalSizeYUnit=\"inch\">", Kind::Ome, None),
            ("<OME><Pixels AnotherPhysicalSizeX=\"1\">", Kind::Ome, None),
            ("<OME><Pixels PhysicalSizeX=", Kind::Ome, None),
            ("MPP = 1", Kind::Other, None),
        ] {
            let found = Kind::of(text);
            assert_eq!((found, found.micrometres(text)), (kind, size), "{text}");
        }
    }
}
