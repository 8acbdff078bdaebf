package catalog

// SchemaSQL is the text of the schema, for whoever forges one.
func SchemaSQL() string { return schemaSQL }
