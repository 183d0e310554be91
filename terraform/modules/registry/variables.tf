variable "name" {
  description = "Name of the repository."
  type        = string
}

variable "deletion_protection" {
  description = "Reject the deletion of the repository while it contains an image."
  type        = bool
}
