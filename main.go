// Roster is a users-and-avatars service.
package main

func main() {}
