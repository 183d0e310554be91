variable "name" {
  description = "Prefix of the names of the table and the bucket."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name))
    error_message = "A name is 2 to 24 lower-case letters, digits and hyphens, begins with a letter and does not end with a hyphen."
  }
}

variable "deletion_protection" {
  description = "Whether the table refuses to be deleted, and the bucket while anything is in it. Set to false and apply before destroying."
  type        = bool
  default     = true
  nullable    = false
}

variable "noncurrent_days" {
  description = "How many days a deleted avatar can be brought back. After that it is gone for good."
  type        = number
  default     = 30
  nullable    = false

  validation {
    condition     = var.noncurrent_days >= 1 && var.noncurrent_days <= 3650 && floor(var.noncurrent_days) == var.noncurrent_days
    error_message = "A whole number of days from 1 to 3650."
  }
}
