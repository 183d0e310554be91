variable "name" {
  description = "Name of the repository."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name))
    error_message = "A name is 2 to 24 lower-case letters, digits and hyphens, begins with a letter and does not end with a hyphen."
  }
}

variable "keep_images" {
  description = "How many tagged images are kept, the newest ones. Keep more than you may want to roll back."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.keep_images >= 1 && var.keep_images <= 1000 && floor(var.keep_images) == var.keep_images
    error_message = "A whole number of images from 1 to 1000."
  }
}

variable "deletion_protection" {
  description = "Whether the repository refuses to be deleted while an image is in it. Set to false and apply before destroying."
  type        = bool
  default     = true
  nullable    = false
}
