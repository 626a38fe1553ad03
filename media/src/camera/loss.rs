//! What becomes of pictures when packets of a UDP camera are lost on the way. Pure.
//!
//! A picture that came whole, but builds on one that did not, is damaged too: so from a loss on everything is left
//! out up to the next key frame. TCP loses nothing on the way: there a gap in the numbers means a camera that counts
//! badly, and costs no picture.

/// Decides for each picture whether it is handed on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    waits_for_key_frame: bool,
}

/// What is known of a picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Picture {
    /// Whether packets are missing before it, or of it.
    pub(super) after_loss: bool,
    /// Whether it can be decoded without the pictures before it.
    pub(super) key: bool,
    /// Whether its own beginning is there; what is missing within, or at its end, never gets this far.
    pub(super) has_its_beginning: bool,
}

impl Losses {
    /// Whether the next picture is whole, and all that it builds on.
    pub(super) fn pass(&mut self, picture: Picture) -> bool {
        self.waits_for_key_frame |= picture.after_loss;
        if picture.key && (picture.has_its_beginning || !picture.after_loss) {
            self.waits_for_key_frame = false;
        }
        !self.waits_for_key_frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e1_after_a_loss_everything_is_left_out_up_to_a_whole_key_frame() {
        let mut losses = Losses::default();
        let mut pass = |after_loss, key, has_its_beginning| {
            losses.pass(Picture {
                after_loss,
                key,
                has_its_beginning,
            })
        };
        assert!(pass(false, true, true));
        assert!(pass(false, false, true));
        assert!(!pass(true, false, true), "the picture before it is missing");
        assert!(!pass(false, false, true), "it builds on a damaged one");
        assert!(!pass(true, true, false), "a key frame whose beginning is missing");
        assert!(!pass(false, false, true));
        assert!(
            pass(true, true, true),
            "only what is before the key frame is missing"
        );
        assert!(pass(false, false, true));
    }
}
