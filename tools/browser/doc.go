// Package browser drives Swagger UI in a headless browser: see its test.
package browser
