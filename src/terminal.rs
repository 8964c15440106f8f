//! What passes through a terminal, kept: the last bytes by number, the screen, the recording. Pure.

mod cast;
mod ring;
mod screen;

pub use cast::{Cast, Event};
pub use ring::{Piece, Ring};
pub use screen::Screen;
