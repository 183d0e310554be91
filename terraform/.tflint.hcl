# The rules that come with TFLint, all of them.
plugin "terraform" {
  enabled = true
  preset  = "all"
}
