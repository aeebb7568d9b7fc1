//! Activation checkpointing (Chen et al., *Training deep nets with sublinear memory cost*, 2016): a segment keeps only its
//! inputs and is run again during the backward pass.

use tomograd_core::{Error, ErrorKind, Result, Tensor};

use crate::{
    Tape, Var,
    tape::{Mode, Node, Place, Segment},
};

impl Segment {
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.used.iter().copied()
    }

    /// Runs the segment again on a recording tape and then backward; returns the gradients of the outer tape's outputs it
    /// used.
    pub(crate) fn backward(self, outer: &Tape, gradients: Vec<Option<Tensor>>) -> Result<Vec<(Place, Tensor)>> {
        let tape = outer.child(Mode::Record);
        let inputs: Vec<Var> = self
            .inputs
            .into_iter()
            .map(|(value, place)| tape.adopt(&Var { value, tape: outer.clone(), place }))
            .collect::<Result<_>>()?;
        let outputs = (self.run)(&tape, &inputs)?;
        drop(inputs);
        let starts = outputs
            .into_iter()
            .zip(gradients)
            .filter_map(|(output, gradient)| Some((output, gradient?)))
            .filter(|(output, _)| output.has_gradient())
            .map(|(output, gradient)| Ok((tape.place_of(&output)?, gradient)))
            .collect::<Result<_>>()?;
        let mut own = tape.backward_from(starts)?;
        // Segments within this one still asked for what was adopted.
        let adopted = std::mem::take(&mut tape.arena().adopted);
        let mut results = Vec::new();
        for (var, place) in adopted {
            let gradient = place.and_then(|place| own.take_place(place));
            if let (Some(place), Some(gradient)) = (var.place, gradient) {
                results.push((place, gradient));
            }
        }
        Ok(results)
    }
}

impl Tape {
    /// Runs `segment` without keeping its intermediate values, which the backward pass computes again. `segment` receives the
    /// tape to work on and `inputs` on that tape. Variables of this tape that it captures (parameters) must be brought onto
    /// the inner tape with [`Tape::adopt`]; they get gradients too. Both runs must compute the same values.
    ///
    /// # Errors
    /// When the segment fails.
    pub fn checkpoint(
        &self,
        inputs: &[&Var],
        segment: impl Fn(&Tape, &[Var]) -> Result<Vec<Var>> + Send + Sync + 'static,
    ) -> Result<Vec<Var>> {
        let tape = if self.is_recording() { self.child(Mode::Discover) } else { self.clone() };
        let inner: Vec<Var> = inputs.iter().map(|input| tape.adopt(input)).collect::<Result<_>>()?;
        let outputs = segment(&tape, &inner)?;
        if !self.is_recording() {
            return Ok(outputs);
        }
        let used: Vec<Place> =
            std::mem::take(&mut tape.arena().adopted).into_iter().filter_map(|(var, _)| var.place).collect();
        if used.is_empty() {
            return Ok(outputs.into_iter().map(|output| self.constant(output.value)).collect());
        }
        if outputs.iter().any(|output| !output.value.dtype().is_float()) {
            return Err(Error::new(ErrorKind::DType, "checkpoint", "an output isn't floating point"));
        }
        let inputs = inputs.iter().map(|input| (input.value.clone(), input.place)).collect();
        let Place { node, .. } =
            self.push(Node::Segment(Box::new(Segment { run: Box::new(segment), inputs, used })))?;
        let wrap = |(output, var): (usize, Var)| Var {
            value: var.value,
            tape: self.clone(),
            place: Some(Place { node, output }),
        };
        Ok(outputs.into_iter().enumerate().map(wrap).collect())
    }
}
