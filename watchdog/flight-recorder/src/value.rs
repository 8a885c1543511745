//! Plain data as pickles and JSON hold it: an arena of lists, maps and texts.
//!
//! An arena, because a pickle may share and nest values at will: dropping it takes no recursion, and a
//! value that refers to itself leaks nothing.

/// A value; those of variable size stand in the [`Arena`] that made it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Item {
    /// None, null, or a number too large to be used.
    Nothing,
    Bool(bool),
    Int(i64),
    Float,
    Text(usize),
    /// A list or a tuple.
    List(usize),
    Map(usize),
}

/// Where values of variable size are kept.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    texts: Vec<Box<str>>,
    lists: Vec<Vec<Item>>,
    maps: Vec<Vec<(Item, Item)>>,
}

impl Arena {
    pub(crate) fn new_text(&mut self, text: &str) -> Item {
        self.texts.push(text.into());
        Item::Text(self.texts.len() - 1)
    }

    pub(crate) fn new_list(&mut self, items: Vec<Item>) -> Item {
        self.lists.push(items);
        Item::List(self.lists.len() - 1)
    }

    pub(crate) fn new_map(&mut self, pairs: Vec<(Item, Item)>) -> Item {
        self.maps.push(pairs);
        Item::Map(self.maps.len() - 1)
    }

    /// The list that an item refers to, to be extended.
    pub(crate) fn list_mut(&mut self, item: Item) -> Option<&mut Vec<Item>> {
        if let Item::List(at) = item { self.lists.get_mut(at) } else { None }
    }

    /// The map that an item refers to, to be extended.
    pub(crate) fn map_mut(&mut self, item: Item) -> Option<&mut Vec<(Item, Item)>> {
        if let Item::Map(at) = item { self.maps.get_mut(at) } else { None }
    }

    /// The items of a list or tuple; none of anything else.
    pub(crate) fn list(&self, item: Item) -> &[Item] {
        if let Item::List(at) = item { &self.lists[at] } else { &[] }
    }

    /// The pairs of a map; none of anything else.
    pub(crate) fn map(&self, item: Item) -> &[(Item, Item)] {
        if let Item::Map(at) = item { &self.maps[at] } else { &[] }
    }

    pub(crate) fn text(&self, item: Item) -> Option<&str> {
        if let Item::Text(at) = item { Some(&self.texts[at]) } else { None }
    }

    /// A value of a map; the last one where a key occurs twice, as Python does.
    pub(crate) fn get(&self, map: Item, key: &str) -> Item {
        let mut pairs = self.map(map).iter().rev();
        pairs.find(|(name, _)| self.text(*name) == Some(key)).map_or(Item::Nothing, |pair| pair.1)
    }

    /// Text, or an integer as text: keys are written both ways.
    pub(crate) fn name(&self, item: Item) -> Option<String> {
        match item {
            Item::Int(number) => Some(number.to_string()),
            _ => self.text(item).map(str::to_owned),
        }
    }

    /// An integer, or the text of one: torch's JSON writes its counters as text.
    pub(crate) fn int(&self, item: Item) -> Option<i64> {
        match item {
            Item::Int(number) => Some(number),
            _ => self.text(item)?.parse().ok(),
        }
    }

    /// Takes JSON over. `serde_json` bounds its depth.
    pub(crate) fn adopt(&mut self, json: &serde_json::Value) -> Item {
        match json {
            serde_json::Value::Null => Item::Nothing,
            serde_json::Value::Bool(yes) => Item::Bool(*yes),
            serde_json::Value::Number(number) => number.as_i64().map_or(Item::Float, Item::Int),
            serde_json::Value::String(text) => self.new_text(text),
            serde_json::Value::Array(items) => {
                let items = items.iter().map(|item| self.adopt(item)).collect();
                self.new_list(items)
            }
            serde_json::Value::Object(pairs) => {
                let pairs = pairs
                    .iter()
                    .map(|(key, value)| (self.new_text(key), self.adopt(value)))
                    .collect();
                self.new_map(pairs)
            }
        }
    }
}
