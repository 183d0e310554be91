variable "name" {
  description = "Name of the VPC, and the prefix of everything in it. The cluster that uses the subnets has the same name."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,22}[a-z0-9]$", var.name))
    error_message = "A name is 2 to 24 lower-case letters, digits and hyphens, begins with a letter and does not end with a hyphen."
  }
}

variable "cidr" {
  description = "IPv4 range of the VPC, from /16 to /20. Three quarters of it are private subnets, the last quarter is public."
  type        = string
  default     = "10.0.0.0/16"
  nullable    = false

  # AWS takes only a range that is written from its first address.
  validation {
    condition     = try("${cidrhost(var.cidr, 0)}/${split("/", var.cidr)[1]}", "") == var.cidr && !strcontains(var.cidr, ":")
    error_message = "Not an IPv4 range written from its first address, such as 10.0.0.0/16."
  }

  validation {
    condition     = try(tonumber(split("/", var.cidr)[1]) >= 16 && tonumber(split("/", var.cidr)[1]) <= 20, false)
    error_message = "The range is from /16, the largest a VPC can have, to /20, so that each zone has a thousand addresses for pods."
  }
}

variable "nat_gateway_per_zone" {
  description = "One NAT gateway a zone instead of one for all: the way out survives the loss of a zone, at three times the price."
  type        = bool
  default     = false
  nullable    = false
}

variable "log_retention_days" {
  description = "How long flow logs are kept, in days; one of the periods that CloudWatch Logs offers."
  type        = number
  default     = 365
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "CloudWatch Logs keeps logs for 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653 days."
  }
}
