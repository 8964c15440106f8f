//! Files of a config repository to objects, with every error at its line and column. Pure.
