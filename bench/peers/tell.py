"""One line of JSON a figure, as `bench/src/compare/peers.rs` takes it in.

It is appended to the file that `PEERS_FILE` names, or printed where it names none.
"""
import json
import os


def tell(comparison, contender, turns, point=""):
    """Tells what `contender` needed in its turns, in the unit of that comparison."""
    line = {"comparison": comparison, "contender": contender, "point": point, "turns": turns}
    name = os.environ.get("PEERS_FILE")
    if name is None:
        print(json.dumps(line), flush=True)
        return
    with open(name, "a") as file:
        print(json.dumps(line), file=file)
