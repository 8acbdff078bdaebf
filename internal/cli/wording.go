package cli

import (
	"regexp"
	"strings"
	"unicode"
)

// field is a field of a request where the REST interface refuses it: "; onConflict: expected ...".
var field = regexp.MustCompile(`; ([a-z][A-Za-z]*)(\[\d+\])?: `)

// ofFlags says what a refusal of the REST interface says of fields in the command line's
// words: fields are flags there, or arguments. Lists and units are parts of the names.
func ofFlags(text string) string {
	text = field.ReplaceAllStringFunc(text, func(found string) string {
		name := field.FindStringSubmatch(found)[1]
		if name == "name" {
			return "; NAME: "
		}
		var flag strings.Builder
		for _, r := range strings.TrimSuffix(name, "Seconds") {
			if unicode.IsUpper(r) {
				flag.WriteByte('-')
			}
			flag.WriteRune(unicode.ToLower(r))
		}
		return "; --" + flag.String() + ": "
	})
	return strings.TrimPrefix(text, "validation failed; ") // which the code says
}
