package capture

// Text is all that this package makes in the schema twinspan, for those who have to know
// what agents made.
func Text() string {
	return setupSQL + identitySQL + textSQL + objectsSQL + foldedSQL + notesSQL + staleSQL + rowsSQL + ddlSQL
}
