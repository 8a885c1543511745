//! Names: addresses made into functions, files and lines by `blazesym`, where the files have symbols.

use blazesym::symbolize::source::{Process, Source};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer};

use super::native::{NativeFrame, Stack};
use super::target::Target;
use super::teller::Why;
use crate::evidence::piece::Piece;
use crate::incident::schema::Frame;

/// Tells each stack once more, with names, and then with lines, which may take much longer to find.
pub(super) fn name(
    target: &Target,
    stacks: &[Stack],
    tell: &mut dyn FnMut(Piece),
) -> Result<(), Why> {
    let symbolizer = Symbolizer::new();
    for debug_syms in [false, true] {
        let source = source(target, debug_syms);
        for stack in stacks {
            let addresses: Vec<u64> = stack.frames.iter().map(|frame| frame.address).collect();
            let symbols = symbolizer
                .symbolize(&source, Input::AbsAddr(&addresses))
                .map_err(|error| format!("no symbols: {error}"))?;
            let frames = stack.told(|frame, place| named(frame, symbols.get(place)));
            tell(Piece::Native { tid: stack.tid, frames });
        }
    }
    Ok(())
}

fn source(target: &Target, debug_syms: bool) -> Source<'static> {
    let mut process = Process::new(target.tid.into());
    process.debug_syms = debug_syms;
    // What the kernel has mapped is surer than what has its name by now, but takes privilege.
    let links = std::fs::read_dir(format!("/proc/{}/map_files", target.tid));
    let first = links.ok().and_then(|mut links| links.next()?.ok());
    process.map_files = first.is_some_and(|link| std::fs::metadata(link.path()).is_ok());
    Source::Process(process)
}

/// The functions at one address, the innermost of those that the compiler inlined first.
fn named(frame: &NativeFrame, symbol: Option<&Symbolized<'_>>) -> Vec<Frame> {
    let unnamed = frame.unnamed();
    let Some(Symbolized::Sym(symbol)) = symbol else { return vec![unnamed] };
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
