//! Newtypes for every name, id and path that crosses a boundary.
