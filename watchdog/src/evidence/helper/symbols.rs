//! Names: addresses made into functions, files and lines by `blazesym`, where the files have symbols.

use blazesym::symbolize::source::{Process, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};

use super::native::{NativeFrame, Stack};
use super::target::Target;
use super::teller::Why;
use crate::evidence::piece::Piece;
use crate::incident::schema::Frame;

/// Tells each stack once more, with names.
pub(super) fn name(
    target: &Target,
    stacks: &[Stack],
    tell: &mut dyn FnMut(Piece),
) -> Result<(), Why> {
    let symbolizer = Symbolizer::new();
    let mut process = Process::new(target.tid.into());
    // Through what the kernel has mapped, which may take privilege, before through its name.
    process.map_files = std::fs::read_dir(format!("/proc/{}/map_files", target.tid)).is_ok()
        && rustix::process::geteuid().is_root();
    let source = Source::Process(process);
    for stack in stacks {
        let addresses: Vec<u64> = stack.frames.iter().map(|frame| frame.address).collect();
        let symbols = symbolizer
            .symbolize(&source, Input::AbsAddr(&addresses))
            .map_err(|error| format!("no symbols: {error}"))?;
        let frames = stack.frames.iter().zip(&symbols).flat_map(|(frame, symbol)| named(frame, symbol));
        tell(Piece::Native { tid: stack.tid, frames: frames.collect() });
    }
    Ok(())
}

/// The functions at one address, the innermost of those that the compiler inlined first.
fn named(frame: &NativeFrame, symbol: &Symbolized<'_>) -> Vec<Frame> {
    let unnamed = frame.unnamed();
    let Symbolized::Sym(symbol) = symbol else { return vec![unnamed] };
    let Sym { name, code_info, inlined, .. } = symbol;
    let outer = (name, code_info.as_deref());
    let inner = inlined.iter().map(|inlined| (&inlined.name, inlined.code_info.as_ref()));
    let mut frames: Vec<Frame> = std::iter::once(outer)
        .chain(inner)
        .map(|(name, place)| Frame {
            function: name.to_string(),
            file: place.map(file_of),
            line: place.and_then(|place| place.line).filter(|&line| line > 0),
            module: unnamed.module.clone(),
        })
        .collect();
    frames.reverse();
    frames
}

fn file_of(place: &CodeInfo<'_>) -> String {
    place.to_path().to_string_lossy().into_owned()
}
